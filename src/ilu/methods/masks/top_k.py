"""Which scores are the largest: exactly, in two readings of them, and never by a sort of all.

The bits of a float32 without its sign are an integer that grows with the size of the number. Its
upper 15 bits make a histogram, and the lower 16 bits of those in the bin that the threshold falls
into a second one; then the threshold is known to the bit. Memory does not grow with the model, but
for a histogram of half a megabyte for each layer or tensor that is ranked by itself.
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
"""Scores looked at together."""
INFINITY = 0x7F80
"""The upper bits of what is not finite."""


class Cut(NamedTuple):
    """What moves of a group: every score above ``key`` and the first ``ties`` that equal it."""

    key: int
    ties: int


def top_fraction(
    scores: Scores, fraction: float, *, per: Per = "model"
) -> Iterator[tuple[str, Bool[Tensor, "..."]]]:
    """A mask of the largest scores: this share of them in the whole model, or per part of it.

    The share is rounded to whole weights. Of equal scores those come first that are read first.
    """
    (mask,) = top_fractions(scores, [fraction], per=per)
    yield from mask


def top_fractions(
    scores: Scores, fractions: Sequence[float], *, per: Per = "model"
) -> list[Iterator[tuple[str, Bool[Tensor, "..."]]]]:
    """The same for several fractions, whose thresholds are found in the same two readings."""
    check_fractions(fractions)
    if per == "row":
        return [rows_of(scores, fraction) for fraction in fractions]
    group_of = GROUPS[per]
    cuts = find_cuts(scores, fractions, group_of)
    return [above(scores, each, group_of) for each in cuts]


def check_fractions(fractions: Sequence[float]) -> None:
    """Refuse a share that is none."""
    for fraction in fractions:
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction {fraction}: it must be above 0 and at most 1")


GROUPS: dict[str, Callable[[str], str]] = {
    "model": lambda name: "",
    "layer": module_of,
    "tensor": lambda name: name,
}
"""What is ranked together; a module outside the blocks is a layer of its own."""


def keys(x: Float[Tensor, "..."]) -> Iterator[Int[Tensor, " n"]]:
    """Integers in the order of the sizes of the scores, some at a time."""
    for part in x.detach().flatten().split(CHUNK):
        yield part.float().abs().view(torch.int32)


def find_cuts(
    scores: Scores, fractions: Sequence[float], group_of: Callable[[str], str]
) -> list[dict[str, Cut]]:
    """The threshold of every group, for every fraction."""
    upper = histograms(scores, group_of)
    wanted = [
        {g: round(fraction * int(h.sum())) for g, h in upper.items()} for fraction in fractions
    ]
    bins = [{g: crossing(upper[g], k) for g, k in counts.items()} for counts in wanted]
    lower = within(scores, group_of, {(g, b) for found in bins for g, (b, _) in found.items()})
    return [
        {g: cut(b, k - over, lower[g, b]) for (g, (b, over)), k in
         zip(found.items(), counts.values(), strict=True)}
        for found, counts in zip(bins, wanted, strict=True)
    ]  # fmt: skip


def histograms(scores: Scores, group_of: Callable[[str], str]) -> dict[str, Int[Tensor, " bins"]]:
    """How many scores of each group share their upper 15 bits."""
    found: dict[str, Tensor] = defaultdict(lambda: torch.zeros(1 << 15, dtype=torch.int64))
    for name, x in scores:
        for part in keys(x):
            found[group_of(name)] += torch.bincount(part >> 16, minlength=1 << 15).cpu()
        if found[group_of(name)][INFINITY:].any():
            raise ValueError(f"the scores of {name} are not finite: is the model damaged?")
    if not found:
        raise ValueError("there are no scores to choose from")
    return dict(found)


def within(
    scores: Scores, group_of: Callable[[str], str], wanted: set[tuple[str, int]]
) -> dict[tuple[str, int], Int[Tensor, " bins"]]:
    """How many scores share all their bits, among those of a group whose upper bits are given."""
    found = {key: torch.zeros(1 << 16, dtype=torch.int64) for key in wanted}
    for name, x in scores:
        bins = [b for g, b in wanted if g == group_of(name)]
        for part in keys(x):
            for b in bins:
                low = part[part >> 16 == b] & 0xFFFF
                found[group_of(name), b] += torch.bincount(low, minlength=1 << 16).cpu()
    return found


class Crossing(NamedTuple):
    """The bin in which counting from the top reaches a number, and how many lie above the bin."""

    bin: int
    over: int


def crossing(histogram: Int[Tensor, " bins"], count: int) -> Crossing:
    """Where counting from the top reaches ``count``; the top bin for 0."""
    from_top = histogram.flip(0).cumsum(0)
    place = int(torch.searchsorted(from_top, max(count, 1)))
    over = int(from_top[place - 1]) if place else 0
    return Crossing(len(histogram) - 1 - place, over)


def cut(upper: int, count: int, lower: Int[Tensor, " bins"]) -> Cut:
    """The threshold that lets ``count`` scores of the bin ``upper`` through."""
    found = crossing(lower, count)
    return Cut(upper << 16 | found.bin, count - found.over)


def above(
    scores: Scores, cuts: dict[str, Cut], group_of: Callable[[str], str]
) -> Iterator[tuple[str, Bool[Tensor, "..."]]]:
    """What the thresholds let through, tensor by tensor."""
    left = {group: found.ties for group, found in cuts.items()}
    for name, x in scores:
        group, parts = group_of(name), list[Tensor]()
        for part in keys(x):
            ties = first(part == cuts[group].key, left[group])
            left[group] -= int(ties.sum())
            parts.append((part > cuts[group].key) | ties)
        yield name, torch.cat(parts).view(x.shape)


def first(true: Bool[Tensor, " n"], count: int) -> Bool[Tensor, " n"]:
    """At most ``count`` of what is true, from the beginning."""
    return true if int(true.sum()) <= count else true & (true.cumsum(0) <= count)


def rows_of(scores: Scores, fraction: float) -> Iterator[tuple[str, Bool[Tensor, "..."]]]:
    """The largest scores of every row; what has one dimension is one row.

    A row is an output of a linear layer, but of the transposed layers of GPT-2 an input.
    """
    for name, x in scores:
        flat = x.reshape(1, -1) if x.dim() < 2 else x.reshape(len(x), -1)
        width = flat.shape[1]
        few = flat.split(max(1, CHUNK // max(1, width)))
        kept = torch.cat([largest(rows, round(fraction * width)) for rows in few])
        yield name, kept.view(x.shape)


def nonzero(scores: Scores) -> Iterator[tuple[str, Bool[Tensor, "..."]]]:
    """Everything that has a score other than 0."""
    for name, x in scores:
        yield name, x != 0


def largest(rows: Float[Tensor, "R C"], count: int) -> Bool[Tensor, "R C"]:
    """The ``count`` largest of every row."""
    order = rows.detach().abs().sort(dim=1, descending=True, stable=True).indices
    return torch.zeros_like(rows, dtype=torch.bool).scatter_(1, order[:, :count], value=True)
