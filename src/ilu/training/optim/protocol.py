"""The interface of optimisers, and the parts of a step that all of them share."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ilu.system.distributed import ALONE, Ranks
from ilu.training.optim.bfloat16 import stochastic_bfloat16
from ilu.types import Grads

Named = Mapping[str, nn.Parameter]
Curvature = Callable[[], Grads]
"""An estimate of the diagonal of the Gauss-Newton matrix, for every trained weight."""


@runtime_checkable
class Optimizer(Protocol):
    """Updates weights by their ``.grad``, which is already clipped.

    It sees only the entries of masked weights that may change, and only local shards. It applies
    no weight decay.
    """

    def refresh(self, step: int, curvature: Curvature) -> None:
        """Update the estimate of the curvature before ``step``, if one is due."""
        ...

    def step(self, step: int, rate: float) -> None:
        """Update the weights; steps count from 0."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, by name."""
        ...

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Restore a state."""
        ...


def by_name(named: Named, states: Mapping[Tensor, Any]) -> dict[str, Any]:
    """The state that a library's optimiser has of each weight, by name."""
    return {name: states[p] for name, p in named.items() if states[p]}


def update(
    named: Named,
    optimizer: Optimizer,
    *,
    step: int,
    rate: float,
    decay: float,
    clip: float | None,
    ranks: Ranks = ALONE,
) -> float:
    """Clip unless ``clip`` is None, decay and step; return the gradient norm before clipping.

    The decay, ``rate`` times ``decay``, is computed here, because libraries round bfloat16 to
    nearest.
    """
    params = [p for p in named.values() if p.grad is not None]
    total = ranks.norm(nn.utils.get_total_norm([p.grad for p in params if p.grad is not None]))
    if clip is not None:
        nn.utils.clip_grads_with_norm_(params, clip, total)
    norm = total.item()
    if math.isfinite(norm):
        if decay:
            moving = {n: p for n, p in named.items() if p.grad is not None}
            shrink(moving, rate * decay, seed=2 * step + 1)
        optimizer.step(step, rate)
    return norm


@torch.no_grad()
def shrink(named: Named, share: float, *, seed: int) -> None:
    """Multiply the weights by 1 - ``share``; bfloat16 is rounded stochastically."""
    generator: torch.Generator | None = None
    for p in named.values():
        if p.dtype != torch.bfloat16:
            p.mul_(1 - share)
            continue
        generator = generator or torch.Generator(p.device).manual_seed(seed)
        p.copy_(stochastic_bfloat16(p.float() * (1 - share), generator))
