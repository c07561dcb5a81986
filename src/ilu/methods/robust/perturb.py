"""Operations on weights and gradients that several gradient rules share."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ilu.system.distributed import full_tensor
from ilu.types import Grads, Params, Slope


@contextmanager
def restored(params: Params) -> Generator[None]:
    """Restore ``params`` bit-identically at the end; ``p + e - e`` would differ from ``p``."""
    saved = [p.detach().clone() for p in params]
    try:
        yield
    finally:
        with torch.no_grad():
            for p, before in zip(params, saved, strict=True):
                p.copy_(before)  # one by one: foreach does not support sharded tensors


@torch.no_grad()
def move(params: Params, direction: Grads, size: float | Tensor) -> None:
    """Add ``size`` times ``direction`` to ``params``, with memory for one tensor more."""
    for p, d in zip(params, direction, strict=True):
        p.add_(size * d)


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of all tensors together, at least 1e-30 so that it can be a divisor."""
    return torch.stack([full_tensor(t.detach().norm()) for t in tensors]).norm().clamp_min(1e-30)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of two tensors of equal shape."""
    return full_tensor((a * b).sum())


def weighted_sum(slopes: Iterable[tuple[float, Slope]]) -> Slope:
    """Weighted sum of values and gradients, with one gradient in memory besides the sum."""
    value, total = 0.0, ()
    for weight, slope in slopes:
        value += weight * slope.value
        if total:
            torch._foreach_add_(list(total), list(slope.grads), alpha=weight)
        else:
            total = tuple(weight * g for g in slope.grads)
    return Slope(value, total)
