"""Gradient rules: where in weight space the gradient of one term is taken."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ilu.types import GradHere, GradOf, Grads, Params, Slope


@contextmanager
def restored(params: Params) -> Generator[None]:
    """Undo every change to ``params``, to the bit: ``p + e - e`` is not ``p``."""
    saved = [p.detach().clone() for p in params]
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(list(params), saved)


@torch.no_grad()
def move(params: Params, direction: Grads, size: float | Tensor) -> None:
    """Add ``size`` times ``direction`` to ``params``."""
    torch._foreach_add_(list(params), [size * d for d in direction])


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of all tensors together; never 0, so that it can divide."""
    return torch.stack([t.detach().norm() for t in tensors]).norm().clamp_min(1e-30)


def plain(params: Params, here: GradHere, grad_of: GradOf) -> Slope:
    """The gradient itself."""
    return here()


@dataclass(frozen=True)
class SAM:
    """Gradient at the worst point of a ball of radius ``rho`` (arXiv 2010.01412).

    ``rho`` is a norm over all trained weights together: at equal change per weight it grows with
    the square root of their number, so a published value does not carry over to another model.
    """

    rho: float = 0.01

    def __call__(self, params: Params, here: GradHere, grad_of: GradOf) -> Slope:
        _, grads = here()
        with restored(params):
            move(params, grads, self.rho / norm(grads))
            return here()
