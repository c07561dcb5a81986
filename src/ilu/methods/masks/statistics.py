"""Statistics of masks and scores: density, overlap, distribution."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from ilu.methods.masks.overlap import Overlap
from ilu.methods.masks.storage import pack, unpack
from ilu.methods.masks.top_k import Scores, histograms
from ilu.models.weight_names import OUTSIDE, Place, place

Bits = Iterable[tuple[str, Bool[Tensor, "..."]]]
QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)


class Count(NamedTuple):
    """Number of weights that may move, and of all weights."""

    moving: int
    total: int

    @property
    def density(self) -> float:
        """Share of the weights that may move."""
        return self.moving / self.total if self.total else 0.0


def counts(mask: Bits) -> dict[str, Count]:
    """The count of each tensor."""
    return {name: Count(int(each.sum()), each.numel()) for name, each in mask}


def total(each: Iterable[Count]) -> Count:
    """The sum of several counts."""
    parts = list(each)
    return Count(sum(c.moving for c in parts), sum(c.total for c in parts))


def density(counts: Mapping[str, Count]) -> dict[str, dict[str, float]]:
    """Module -> block -> share of its weights that may move."""
    grouped: dict[Place, list[Count]] = defaultdict(list)
    for name, count in counts.items():
        grouped[place(name)].append(count)
    table: dict[str, dict[str, float]] = defaultdict(dict)
    for (module, block), each in grouped.items():
        table[module][block] = total(each).density
    return dict(table)


def by_block(counts: Mapping[str, Count]) -> dict[str, Count]:
    """The count of each block, and last of all weights outside the blocks."""
    grouped: dict[str, list[Count]] = defaultdict(list)
    for name, count in counts.items():
        grouped[place(name).block].append(count)
    return {block: total(grouped[block]) for block in sorted(grouped, key=in_order)}


def in_order(block: str) -> tuple[bool, int]:
    """Sort key: blocks by number, then weights outside the blocks."""
    return (block == OUTSIDE, 0 if block == OUTSIDE else int(block))


def overlaps(a: Bits, b: Bits) -> dict[str, Overlap]:
    """The overlap in each tensor. A tensor that a mask does not name is fixed."""
    others = {name: (pack(each), each.shape) for name, each in b}  # an eighth of the memory
    by_name: dict[str, Overlap] = {}
    for name, each in a:
        other = unpack(*others.pop(name, (pack(torch.zeros_like(each)), each.shape)))
        if other.shape != each.shape:
            raise ValueError(f"the masks are of different models: they disagree about {name}")
        moving = int(each.sum()), int(other.sum())
        both = int((each & other).sum())
        chance = moving[0] * moving[1] / max(1, each.numel())
        by_name[name] = Overlap(both, sum(moving) - both, chance)
    alone = {name: int(unpack(*each).sum()) for name, each in others.items()}
    return by_name | {name: Overlap(0, moving, 0.0) for name, moving in alone.items()}


def by_module(overlaps: Mapping[str, Overlap]) -> dict[str, Overlap]:
    """The overlap in each module, summed over blocks, and in ``all`` modules together."""
    grouped: dict[str, list[Overlap]] = defaultdict(list)
    for name, each in overlaps.items():
        grouped[place(name).module].append(each)
    by_name = {m: joined(parts) for m, parts in grouped.items()}
    return {**by_name, "all": joined(overlaps.values())}


def joined(parts: Iterable[Overlap]) -> Overlap:
    """The overlap in several tensors together."""
    each = list(parts)
    return Overlap(
        sum(o.both for o in each), sum(o.either for o in each), sum(o.chance for o in each)
    )


class Distribution(NamedTuple):
    """Distribution of absolute scores: number of zeros, quantiles, and counts by power of 2.

    Quantiles are exact to 0.4 %, half the bin width of the first histogram in ``top_k``.
    """

    zero: int
    quantiles: dict[str, float]
    octaves: dict[str, int]


def distribution(scores: Scores) -> Distribution:
    """The distribution of scores, in one pass."""
    (histogram,) = histograms(scores, lambda name: "").values()
    sizes = ((torch.arange(1 << 15, dtype=torch.int32) << 16) | 0x8000).view(torch.float32)
    sizes[0] = 0.0
    cumulative = histogram.cumsum(0)
    ranks = torch.tensor(QUANTILES, dtype=torch.float64) * int(cumulative[-1])
    values = sizes[torch.searchsorted(cumulative, ranks.ceil().long().clamp_min(1))].tolist()
    exponents = histogram.view(256, 128).sum(1).tolist()
    octaves = {str(e - 127): n for e, n in enumerate(exponents) if n and e}
    zero = int(histogram[0])
    return Distribution(zero, {str(q): x for q, x in zip(QUANTILES, values, strict=True)}, octaves)
