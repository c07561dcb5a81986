"""Retain losses on hidden states."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ilu.models.state_math import check_layers, compare_states, state_distance
from ilu.types import Batch, Forward, Needs


@dataclass(frozen=True)
class States:
    """Keep the output of block ``layer`` where the original has it: RMU's retain term.

    arXiv 2403.03218; squared distance per coordinate over real tokens.
    """

    layer: int = 7

    @property
    def needs(self) -> Needs:
        return Needs(reference=True, texts=0, blocks=(self.layer,))

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        hidden, original = (f.hidden(batch, self.layer) for f in (forward, reference))
        return state_distance(hidden, original, batch.attention_mask)


@dataclass(frozen=True)
class StateNorms:
    """Distance |h - h_original| over real tokens and the blocks ``layers`` (arXiv 2406.04313).

    The norm itself and not its square, as circuit breakers and TAR have it. The released code takes
    the states of all blocks, and averages padding in; here it is the blocks that are turned.
    """

    layers: tuple[int, ...] = (9, 19)

    def __post_init__(self) -> None:
        check_layers(self.layers)

    @property
    def needs(self) -> Needs:
        return Needs(reference=True, texts=0, blocks=self.layers)

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        return compare_states(distance, self.layers, (forward, reference), batch)


def distance(
    x: Float[Tensor, "B T D"], y: Float[Tensor, "B T D"], floor: float = 1e-12
) -> Float[Tensor, "B T"]:
    """|x - y| at every token, with gradient 0 where the two are equal, as they are at the start."""
    return ((x - y).square().sum(-1) + floor).sqrt() - floor**0.5
