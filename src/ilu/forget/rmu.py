"""Representation misdirection for unlearning."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ilu.losses.states import state_distance
from ilu.types import Batch, Forward


def steering_vector(width: int, *, coefficient: float, seed: int) -> Float[Tensor, " D"]:
    """``coefficient`` times a fixed unit vector with uniform positive entries.

    Positive entries are the authors' ``torch.rand``: two such directions have a cosine near 3/4, so
    it is not a uniformly random direction.
    """
    direction = torch.rand(width, generator=torch.Generator().manual_seed(seed))
    return coefficient * direction / direction.norm()


@dataclass(frozen=True)
class RMU:
    """Push the output of block ``layer`` towards one fixed vector (arXiv 2403.03218).

    Squared distance per coordinate over real tokens; the authors' code averages padding in.
    ``coefficient`` is absolute: compare it with the norm of the hidden states, which differs
    between models.
    """

    layer: int = 7
    coefficient: float = 6.5
    seed: int = 0
    needs_reference: ClassVar[bool] = False

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        hidden = forward.hidden(batch, self.layer)
        target = steering_vector(hidden.shape[-1], coefficient=self.coefficient, seed=self.seed)
        return state_distance(hidden, target.to(hidden.device), batch.attention_mask)
