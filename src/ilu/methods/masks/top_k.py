"""Exact selection of the largest scores in two passes, without sorting all of them.

The bits of a float32 without its sign are an integer that grows with its absolute value. The first
pass makes a histogram of the upper 15 bits, which gives the bin of the threshold. The second makes
one of the lower 16 bits of the scores in that bin, which gives the exact threshold. Memory does not
grow with the model, except for a histogram of half a megabyte per separately ranked layer or
tensor.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ilu.methods.masks.choices import Per
from ilu.models.weight_names import module_of

Scores = Iterable[tuple[str, Float[Tensor, "..."]]]
"""Name and scores of each tensor, in the same order whenever they are read; they are read often."""
CHUNK = 1 << 22
"""Scores that are processed at once."""
INFINITY = 0x7F80
"""The upper bits of infinities and NaN."""


class Cut(NamedTuple):
    """The selection of a group: every score above ``key`` and the first ``ties`` equal to it."""

    key: int
    ties: int


def top_fraction(
    scores: Scores, fraction: float, *, per: Per = "model"
) -> Iterator[tuple[str, Bool[Tensor, "..."]]]:
    """A mask of the largest ``fraction`` of the scores, over the full model or per part of it.

    The number of weights is rounded. Among equal scores the first ones are selected.
    """
    (mask,) = top_fractions(scores, [fraction], per=per)
    yield from mask


def top_fractions(
    scores: Scores, fractions: Sequence[float], *, per: Per = "model"
) -> list[Iterator[tuple[str, Bool[Tensor, "..."]]]]:
    """The same for several fractions in the same two passes."""
    check_fractions(fractions)
    if per == "row":
        return [rows_of(scores, fraction) for fraction in fractions]
    group_of = GROUPS[per]
    cuts = find_cuts(scores, fractions, group_of)
    return [above(scores, each, group_of) for each in cuts]


def check_fractions(fractions: Sequence[float]) -> None:
    """ValueError unless all fractions are above 0 and at most 1."""
    for fraction in fractions:
        if not 0 < fraction <= 1:
            raise ValueError(f"`fraction` {fraction}: it must be above 0 and at most 1")


GROUPS: dict[str, Callable[[str], str]] = {
    "model": lambda name: "",
    "layer": module_of,
    "tensor": lambda name: name,
}
"""The group of a weight, within which scores are ranked. A module outside blocks is one layer."""


def keys(x: Float[Tensor, "..."]) -> Iterator[Int[Tensor, " n"]]:
    """Integers in the order of the absolute scores, ``CHUNK`` at a time."""
    for part in x.detach().flatten().split(CHUNK):
        yield part.float().abs().view(torch.int32)


def find_cuts(
    scores: Scores, fractions: Sequence[float], group_of: Callable[[str], str]
) -> list[dict[str, Cut]]:
    """The threshold of every group, for every fraction."""
    upper = histograms(scores, group_of)
    targets = [
        {g: round(fraction * int(h.sum())) for g, h in upper.items()} for fraction in fractions
    ]
    bins = [{g: crossing(upper[g], k) for g, k in counts.items()} for counts in targets]
    lower = within(scores, group_of, {(g, b) for each in bins for g, (b, _) in each.items()})
    return [
        {g: cut(b, k - over, lower[g, b]) for (g, (b, over)), k in
         zip(each.items(), counts.values(), strict=True)}
        for each, counts in zip(bins, targets, strict=True)
    ]  # fmt: skip


def histograms(scores: Scores, group_of: Callable[[str], str]) -> dict[str, Int[Tensor, " bins"]]:
    """Histogram of the upper 15 bits of the scores of each group."""
    counts: dict[str, Tensor] = defaultdict(lambda: torch.zeros(1 << 15, dtype=torch.int64))
    for name, x in scores:
        for part in keys(x):
            counts[group_of(name)] += torch.bincount(part >> 16, minlength=1 << 15).cpu()
        if counts[group_of(name)][INFINITY:].any():
            raise ValueError(f"the scores of {name} are not finite: is the model damaged?")
    if not counts:
        raise ValueError("there are no scores to choose from")
    return dict(counts)


def within(
    scores: Scores, group_of: Callable[[str], str], bins: set[tuple[str, int]]
) -> dict[tuple[str, int], Int[Tensor, " bins"]]:
    """Histogram of the lower 16 bits of the scores of each group and upper-bit bin in ``bins``."""
    counts = {key: torch.zeros(1 << 16, dtype=torch.int64) for key in bins}
    for name, x in scores:
        of_group = [b for g, b in bins if g == group_of(name)]
        for part in keys(x):
            for b in of_group:
                low = part[part >> 16 == b] & 0xFFFF
                counts[group_of(name), b] += torch.bincount(low, minlength=1 << 16).cpu()
    return counts


class Crossing(NamedTuple):
    """The bin in which the count from the top reaches a number, and the count above this bin."""

    bin: int
    over: int


def crossing(histogram: Int[Tensor, " bins"], count: int) -> Crossing:
    """The bin in which the count from the top reaches ``count``; the top bin for 0."""
    from_top = histogram.flip(0).cumsum(0)
    place = int(torch.searchsorted(from_top, max(count, 1)))
    over = int(from_top[place - 1]) if place else 0
    return Crossing(len(histogram) - 1 - place, over)


def cut(upper: int, count: int, lower: Int[Tensor, " bins"]) -> Cut:
    """The threshold that selects ``count`` scores of the bin ``upper``."""
    at = crossing(lower, count)
    return Cut(upper << 16 | at.bin, count - at.over)


def above(
    scores: Scores, cuts: dict[str, Cut], group_of: Callable[[str], str]
) -> Iterator[tuple[str, Bool[Tensor, "..."]]]:
    """The scores above the thresholds, tensor by tensor."""
    left = {group: each.ties for group, each in cuts.items()}
    for name, x in scores:
        group, parts = group_of(name), list[Tensor]()
        for part in keys(x):
            ties = first(part == cuts[group].key, left[group])
            left[group] -= int(ties.sum())
            parts.append((part > cuts[group].key) | ties)
        yield name, torch.cat(parts).view(x.shape)


def first(true: Bool[Tensor, " n"], count: int) -> Bool[Tensor, " n"]:
    """The first ``count`` true entries."""
    return true if int(true.sum()) <= count else true & (true.cumsum(0) <= count)


def rows_of(scores: Scores, fraction: float) -> Iterator[tuple[str, Bool[Tensor, "..."]]]:
    """The largest scores of every row. A tensor of one dimension is one row.

    A row is an output of a linear layer; in the transposed layers of GPT-2 it is an input.
    """
    for name, x in scores:
        flat = x.reshape(1, -1) if x.dim() < 2 else x.reshape(len(x), -1)
        width = flat.shape[1]
        few = flat.split(max(1, CHUNK // max(1, width)))
        kept = torch.cat([largest(rows, round(fraction * width)) for rows in few])
        yield name, kept.view(x.shape)


def nonzero(scores: Scores) -> Iterator[tuple[str, Bool[Tensor, "..."]]]:
    """All weights with a nonzero score."""
    for name, x in scores:
        yield name, x != 0


def largest(rows: Float[Tensor, "R C"], count: int) -> Bool[Tensor, "R C"]:
    """The ``count`` largest absolute scores of every row."""
    order = rows.detach().abs().sort(dim=1, descending=True, stable=True).indices
    return torch.zeros_like(rows, dtype=torch.bool).scatter_(1, order[:, :count], value=True)
