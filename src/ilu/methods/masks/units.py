"""Selection of heads, neurons or modules instead of single weights."""

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ilu.methods.masks.choices import Reduce, Unit
from ilu.methods.masks.top_k import Scores
from ilu.models.weight_names import module_of


class Axis(NamedTuple):
    """The units of a tensor: ``parts`` equal parts of dimension ``dim``."""

    dim: int
    parts: int


HEADS = {r"\.(q|k|v)_proj\.(weight|bias)$": 0, r"\.(o_proj|out_proj)\.weight$": 1}
NEURONS = {
    r"\.(gate_proj|up_proj|fc1|dense_h_to_4h)\.(weight|bias)$": 0,
    r"\.(down_proj|fc2|dense_4h_to_h)\.weight$": 1,
    r"\.mlp\.c_fc\.weight$": 1,
    r"\.mlp\.c_fc\.bias$": 0,
    r"\.mlp\.c_proj\.weight$": 0,
}
"""Names of weights -> the dimension that counts heads or neurons; GPT-2's are transposed."""


@dataclass(frozen=True)
class Units:
    """The units with the largest scores, up to a given share of all scored weights.

    A head consists of its rows of q, k and v and its columns of the output matrix; heads with
    shared keys and values are one unit. A neuron consists of its rows of the input matrices of the
    MLP and its column of the output matrix. A module is a weight matrix with its bias. Weights that
    belong to no unit are fixed.

    Args:
        unit: heads, neurons or modules.
        reduce: how the scores of a unit are combined: mean absolute value, norm (SURE, arXiv
            2410.16454), or, for the score snip, absolute sum: the first-order effect of removal.
        heads: number of key-value heads of the model, for the unit heads.
    """

    unit: Unit
    reduce: Reduce = "mean"
    heads: int | None = None

    def __post_init__(self) -> None:
        if self.unit == "heads" and not self.heads:
            raise ValueError("to choose heads, say how many key-value heads the model has")

    def __call__(
        self, scores: Scores, fraction: float
    ) -> Iterator[tuple[str, Bool[Tensor, "..."]]]:
        """A mask of complete units, as many as fit into ``fraction`` of the scored weights."""
        ranked = self.ranked(scores)
        self.warn_of_stacks(scores)
        budget = fraction * sum(x.numel() for _, x in scores)
        chosen: set[tuple[str, int]] = set()
        for group, i, size in ranked:
            if size <= budget:
                chosen.add((group, i))
                budget -= size
        if not chosen:
            raise ValueError(
                f"`fraction` {fraction}: not even one of the {len(ranked)} {self.unit} fits into it"
            )
        for name, x in scores:
            yield name, self.spread(name, x, chosen)

    def warn_of_stacks(self, scores: Scores) -> None:
        """Warn of experts that lie in one tensor, whose neurons are in no unit."""
        stacks = [name for name, x in scores if x.ndim == 3 and self.axis(name, x) is None]
        if self.unit == "neurons" and stacks:
            warnings.warn(
                f"the neurons of experts that lie in one tensor, such as {stacks[0]}, are no "
                "units: these weights are fixed",
                stacklevel=2,
            )

    def axis(self, name: str, x: Tensor) -> Axis | None:
        """The axis of the units of a tensor, if it has any."""
        if self.unit == "modules":
            return Axis(0, 1)
        for pattern, dim in (HEADS if self.unit == "heads" else NEURONS).items():
            if re.search(pattern, name):
                return Axis(dim, self.heads or x.shape[dim])
        return None

    def group(self, name: str) -> str:
        """The name of the block or module whose tensors share their units."""
        return name.rpartition(".")[0] if self.unit == "modules" else module_of(name)

    def ranked(self, scores: Scores) -> list[tuple[str, int, int]]:
        """Group, index and number of weights of every unit, by descending score."""
        sums, sizes = self.totals(scores)
        values = {g: reduced(s, sizes[g], self.reduce) for g, s in sums.items()}
        units = [(g, i) for g, v in values.items() for i in range(len(v))]
        if not units:
            raise ValueError(f"found no {self.unit}: the names of this model's weights are unknown")
        order = torch.cat(list(values.values())).sort(descending=True, stable=True).indices
        return [(*units[i], int(sizes[units[i][0]])) for i in order.tolist()]

    def totals(self, scores: Scores) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Sum over each unit for ``reduce``, and the number of weights of a unit."""
        inner = INNER[self.reduce]
        sums: dict[str, Tensor] = {}
        sizes: dict[str, float] = {}
        sides: dict[str, set[int]] = {}
        for name, x in scores:
            axis = self.axis(name, x)
            if axis is None:
                continue
            group = self.group(name)
            sides.setdefault(group, set()).add(axis.dim)
            per_unit = by_unit(inner(x.float()), axis).sum(1, dtype=torch.float64).cpu()
            sums[group] = sums.get(group, torch.zeros_like(per_unit)) + per_unit
            sizes[group] = sizes.get(group, 0) + x.numel() / axis.parts
        if self.unit != "modules" and any(len(dims) < 2 for dims in sides.values()):
            raise ValueError(
                f"this model keeps parts of its {self.unit} together in one matrix, or some "
                "have no score: choose single weights or modules"
            )
        return sums, sizes

    def spread(self, name: str, x: Tensor, chosen: set[tuple[str, int]]) -> Bool[Tensor, "..."]:
        """The mask of a tensor: true in its chosen units."""
        axis = self.axis(name, x)
        if axis is None:
            return torch.zeros_like(x, dtype=torch.bool)
        group, width = self.group(name), x.shape[axis.dim] // axis.parts
        kept = torch.tensor([(group, i) in chosen for i in range(axis.parts)], device=x.device)
        along = [1] * axis.dim + [-1] + [1] * (x.dim() - axis.dim - 1)
        return kept.repeat_interleave(width).view(along).expand(x.shape).clone()


INNER: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": torch.abs, "norm": torch.square, "sum": lambda x: x,
}  # fmt: skip


def by_unit(x: Float[Tensor, "..."], axis: Axis) -> Float[Tensor, "units each"]:
    """The tensor with one row per unit."""
    return x.movedim(axis.dim, 0).reshape(axis.parts, -1)


def reduced(sums: Float[Tensor, " units"], size: float, how: Reduce) -> Float[Tensor, " units"]:
    """One score per unit."""
    return {"mean": sums / size, "norm": sums.abs().sqrt(), "sum": sums.abs()}[how]
