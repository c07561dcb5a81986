"""Retain losses on hidden states."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ilu.models.state_math import check_layers, compare_states, state_distance
from ilu.types import Batch, Forward, Needs


@dataclass(frozen=True)
class States:
    """Distance of the output of block ``layer`` from the original's: RMU's retain term.

    The squared distance per coordinate, over tokens without padding (arXiv 2403.03218).
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
    """|h - h_original| over tokens without padding and the blocks ``layers`` (arXiv 2406.04313).

    The norm and not its square, as in circuit breakers and TAR. The released code uses all blocks
    and includes padding; here it is the blocks of the forget term.
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
    """|x - y| at every token; the gradient is 0 where both are equal, as at the first step."""
    return ((x - y).square().sum(-1) + floor).sqrt() - floor**0.5
