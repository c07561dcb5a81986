"""Retain loss on hidden states."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ilu.losses.states import state_distance
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
