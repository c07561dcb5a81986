"""Retain losses on hidden states."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ilu.losses.states import state_distance
from ilu.losses.tokens import at_least_float32, masked_mean
from ilu.types import Batch, Forward


@dataclass(frozen=True)
class States:
    """Keep the output of block ``layer`` where the original has it: RMU's retain term.

    arXiv 2403.03218; squared distance per coordinate over real tokens.
    """

    layer: int = 7
    needs_reference: ClassVar[bool] = True

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        hidden, original = (f.hidden(batch, self.layer) for f in (forward, reference))
        return state_distance(hidden, original, batch.attention_mask)


@dataclass(frozen=True)
class StateNorms:
    """Distance |h - h_original| over real tokens and the blocks ``layers`` (arXiv 2406.04313).

    The norm itself and not its square, as circuit breakers and TAR have it; the released code
    averages padding in.
    """

    layers: tuple[int, ...] = (10, 20)
    needs_reference: ClassVar[bool] = True

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        each = [self.at(layer, forward, reference, batch) for layer in self.layers]
        return torch.stack(each).mean(0)

    def at(
        self, layer: int, forward: Forward, reference: Forward, batch: Batch
    ) -> Float[Tensor, " B"]:
        """The same for one block."""
        hidden, original = (at_least_float32(f.hidden(batch, layer)) for f in (forward, reference))
        return masked_mean(distance(hidden, original), batch.attention_mask.bool())


def distance(
    x: Float[Tensor, "B T D"], y: Float[Tensor, "B T D"], floor: float = 1e-12
) -> Float[Tensor, "B T"]:
    """|x - y| at every token, with gradient 0 where the two are equal, as they are at the start."""
    return ((x - y).square().sum(-1) + floor).sqrt() - floor**0.5
