"""Representation misdirection for unlearning."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ilu.models.state_math import state_distance
from ilu.models.token_math import at_least_float32, masked_mean
from ilu.types import Batch, Forward

Entries = Literal["positive", "gaussian"]


def steering_vector(width: int, *, seed: int, entries: Entries = "positive") -> Float[Tensor, " D"]:
    """A fixed unit vector.

    ``positive`` entries are the authors' ``torch.rand``: two such directions have a cosine near
    3/4. ``gaussian`` ones make it a uniformly random direction.
    """
    generator = torch.Generator().manual_seed(seed)
    draw = {"positive": torch.rand, "gaussian": torch.randn}[entries]
    direction = draw(width, generator=generator)
    return direction / direction.norm()


@dataclass(frozen=True)
class RMU:
    """Push the output of block ``layer`` towards one fixed vector (arXiv 2403.03218).

    Squared distance per coordinate over real tokens; the authors' code averages padding in.
    ``coefficient`` is absolute: compare it with the norm of the hidden states, which differs
    between models. Every ``topic`` has a direction of its own.
    """

    layer: int = 7
    coefficient: float = 6.5
    seed: int = 0
    entries: Entries = "positive"
    topic: int = 0
    needs_reference: ClassVar[bool] = False

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        hidden = forward.hidden(batch, self.layer)
        u = steering_vector(hidden.shape[-1], seed=self.seed + self.topic, entries=self.entries)
        return state_distance(hidden, self.coefficient * u.to(hidden.device), batch.attention_mask)


@dataclass(frozen=True)
class AdaptiveRMU:
    """RMU with a coefficient of ``scale`` times the norm of the original states (2408.06223).

    arXiv 2408.06223 measures that norm once per topic; here it is the mean over the tokens of each
    text, so nothing has to be remembered.
    """

    layer: int = 7
    scale: float = 5.0
    seed: int = 0
    entries: Entries = "positive"
    topic: int = 0
    needs_reference: ClassVar[bool] = True

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        hidden, original = (f.hidden(batch, self.layer) for f in (forward, reference))
        u = steering_vector(hidden.shape[-1], seed=self.seed + self.topic, entries=self.entries)
        size = masked_mean(at_least_float32(original).norm(dim=-1), batch.attention_mask.bool())
        target = self.scale * size[:, None, None] * u.to(hidden.device)
        return state_distance(hidden, target, batch.attention_mask)
