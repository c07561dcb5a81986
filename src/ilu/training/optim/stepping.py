"""When weights are moved: all after the backward pass, or each within it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from ilu.system.distributed import Ranks
from ilu.training.optim.by_name import Kind, optimizer_for
from ilu.training.optim.masked import Moving
from ilu.training.optim.protocol import Curvature, Optimizer, shrink, update

Backward = Callable[[Tensor], None]
"""Differentiates a sum of losses, adding to ``.grad``."""


def differentiate(total: Tensor) -> None:
    """The backward pass and nothing else."""
    total.backward()


@dataclass(frozen=True)
class AtOnce:
    """All weights move when their gradients are there, which can be clipped together."""

    free: Moving
    optimizer: Optimizer
    decay: float
    clip: float | None
    ranks: Ranks

    def refresh(self, step: int, curvature: Curvature) -> None:
        """Look at the curvature before ``step``, if it is time to."""
        self.optimizer.refresh(step, curvature)

    def backward(self, step: int, rate: float) -> Backward:
        """The last backward pass of a step."""
        return differentiate

    def finish(self, step: int, rate: float) -> float:
        """Move the weights unless a gradient is not finite; return the gradient norm."""
        self.free.gather()
        norm = update(self.free.parts, self.optimizer, step=step, rate=rate, decay=self.decay,
                      clip=self.clip, ranks=self.ranks)  # fmt: skip
        self.free.scatter()
        return norm

    def state(self) -> dict[str, Tensor]:
        """That of the optimiser."""
        return self.optimizer.state()

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Bring back a state."""
        self.optimizer.restore(saved)


@dataclass(frozen=True)
class Fused:
    """Each weight moves as soon as its gradient is complete, which is then let go (LOMO's idea).

    arXiv 2306.09782, section 3.1; there with plain descent, here with one of ``each``, an optimiser
    for every weight. The last backward pass of a step does so: gradients of those before it are
    kept. Numbers are those of ``AtOnce`` without clipping, to the bit, because no other weight
    enters a weight's step; only where bfloat16 is rounded at random are the draws others.

    A gradient that is not finite ends the run as in ``AtOnce``, but may have moved weights before.
    """

    free: Moving
    each: Mapping[str, Optimizer]
    decay: float
    norms: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    def refresh(self, step: int, curvature: Curvature) -> None:
        """Nothing: what looks at the curvature needs that of all weights."""

    def backward(self, step: int, rate: float) -> Backward:
        """The last backward pass of a step."""
        return partial(self.descend, step=step, rate=rate)

    def descend(self, total: Tensor, *, step: int, rate: float) -> None:
        """Differentiate and move; a loss that is not finite moves nothing."""
        named = self.free.whole if math.isfinite(total.item()) else {}
        hooks = [
            p.register_post_accumulate_grad_hook(partial(self.arrived, name, step, rate))
            for name, p in named.items()
        ]
        try:
            total.backward()
        finally:
            for hook in hooks:
                hook.remove()

    def arrived(self, name: str, step: int, rate: float, p: Tensor) -> None:
        """Move one weight, whose gradient is complete, if it is to be moved at all."""
        if name in self.each:
            self.keep_norm(name)
            self.move(name, step, rate)
        p.grad = None

    def finish(self, step: int, rate: float) -> float:
        """Move what the last backward pass did not reach; return the norm of the gradient."""
        left = [name for name in self.each if self.free.parts[name].grad is not None]
        for name in left:
            self.keep_norm(name)
        found = [self.norms[name] for name in self.each if name in self.norms]
        norm = torch.linalg.vector_norm(torch.stack(found)).item() if found else 0.0
        for name in left if math.isfinite(norm) else []:
            self.move(name, step, rate)
        for p in self.free.whole.values():
            p.grad = None
        self.norms.clear()
        return norm

    def keep_norm(self, name: str) -> None:
        """Remember how large a gradient is, if there is one."""
        grad = self.free.parts[name].grad
        if grad is not None:
            self.norms[name] = torch.linalg.vector_norm(grad)

    def move(self, name: str, step: int, rate: float) -> None:
        """Decay and step of one weight, with random numbers that no other weight has."""
        own = step * len(self.each) + list(self.each).index(name)
        if self.decay:
            shrink({name: self.free.parts[name]}, rate * self.decay, seed=2 * own + 1)
        self.each[name].step(own, rate)

    def state(self) -> dict[str, Tensor]:
        """That of all optimisers, as one optimiser of all weights has it."""
        return {k: v for one in self.each.values() for k, v in one.state().items()}

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Bring back a state."""
        for one in self.each.values():
            one.restore(saved)


def one_each(kind: Kind, free: Moving, betas: tuple[float, float] | None) -> dict[str, Optimizer]:
    """An optimiser for every weight that moves."""
    return {name: optimizer_for(kind, {name: p}, betas) for name, p in free.parts.items()}
