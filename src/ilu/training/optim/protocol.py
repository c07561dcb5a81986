"""What the training loop asks of an optimiser, and what it does itself."""

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
    """Moves weights along their ``.grad``, which is clipped when it comes here.

    Of a masked weight it sees the entries that move, and no others; of a sharded one, those in this
    process. It has no weight decay inside.
    """

    def refresh(self, step: int, curvature: Curvature) -> None:
        """Look at the curvature before ``step``, if it is time to."""
        ...

    def step(self, step: int, rate: float) -> None:
        """Move the weights; steps count from 0."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, by name."""
        ...

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Bring back a state."""
        ...


def by_name(named: Named, states: Mapping[Tensor, Any]) -> dict[str, Any]:
    """What an optimiser of a library keeps of each weight, of those that have moved."""
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

    Decay, ``rate`` times ``decay``, is ours, because that of libraries rounds bfloat16 to nearest.
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
    """Make the weights smaller by ``share``; bfloat16 is rounded at random."""
    generator: torch.Generator | None = None
    for p in named.values():
        if p.dtype != torch.bfloat16:
            p.mul_(1 - share)
            continue
        generator = generator or torch.Generator(p.device).manual_seed(seed)
        p.copy_(stochastic_bfloat16(p.float() * (1 - share), generator))
