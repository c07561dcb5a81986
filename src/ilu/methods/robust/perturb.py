"""Gradient rules: how the gradient of one term is computed (SAM, random smoothing, L1)."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ilu.methods.ending import Ending
from ilu.system.distributed import laid_out, whole
from ilu.training.objective import Plain
from ilu.types import Copies, GradHere, GradOf, GradRule, Grads, Params, Slope


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
    """Add ``size`` times ``direction`` to ``params``."""
    torch._foreach_add_(list(params), [size * d for d in direction])


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of all tensors together, at least 1e-30 so that it can be a divisor."""
    return torch.stack([whole(t.detach().norm()) for t in tensors]).norm().clamp_min(1e-30)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of two tensors of equal shape."""
    return whole((a * b).sum())


@dataclass(frozen=True)
class SAM:
    """Gradient at the approximate maximum in a ball of radius ``rho`` (SAM, arXiv 2010.01412).

    ``rho`` is a norm over all trained weights together. At equal change per weight it grows with
    the square root of their number, so a published value does not transfer to models of other
    sizes. Published with token NPO on WMDP (2502.05374): rho 0.01, lr 5e-6, beta 0.015, gamma 2.25.

    Args:
        rho: radius of the ball, a norm over all trained weights together.
    """

    rho: float = 0.01
    power = None
    copies = Copies(3, 2)

    def __post_init__(self) -> None:
        if self.rho < 0:
            raise ValueError(f"rho {self.rho}: the radius must be at least 0")

    def reads(self) -> tuple[str, ...]:
        return ()

    def __call__(self, params: Params, here: GradHere, grad_of: GradOf, step: int) -> Slope:
        _, grads = here()
        with restored(params):
            move(params, grads, self.rho / norm(grads))
            return here()


@dataclass(frozen=True)
class RandomSmoothing:
    """Mean gradient at random points around the weights (RS, arXiv 2502.05374).

    Published with token NPO on WMDP: sigma 1e-4, 3 points, lr 1e-5, beta 0.0125, gamma 2.

    Args:
        sigma: standard deviation of the noise on every weight.
        samples: number of random points.
        noise_seed: seed of the noise, which differs between steps.
    """

    sigma: float = 1e-4
    samples: int = 3
    noise_seed: int = 0
    power = None
    copies = Copies(5, 4)

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"random smoothing with {self.samples} samples: at least 1 is needed")

    def reads(self) -> tuple[str, ...]:
        return ()

    def __call__(self, params: Params, here: GradHere, grad_of: GradOf, step: int) -> Slope:
        seeds = [(self.noise_seed * 1_000_003 + step) * 101 + i for i in range(self.samples)]
        return weighted_sum((1 / self.samples, self.at(params, here, seed)) for seed in seeds)

    def at(self, params: Params, here: GradHere, seed: int) -> Slope:
        """The gradient at one random point."""
        generator = torch.Generator().manual_seed(seed)
        noise = tuple(laid_out(torch.randn(p.shape, generator=generator), p) for p in params)
        with restored(params):
            move(params, noise, self.sigma)
            return here()


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


@dataclass(frozen=True)
class L1:
    """Add ``l1`` times the sum of absolute weights: l1-sparse unlearning (arXiv 2304.04934).

    ``inner`` is the rule for the term itself.
    """

    l1: float = 1e-4
    inner: GradRule = Plain()
    power = None

    @property
    def copies(self) -> Copies:
        return self.inner.copies._replace(most=max(2, self.inner.copies.most))

    def reads(self) -> tuple[str, ...]:
        return self.inner.reads()

    def __call__(self, params: Params, here: GradHere, grad_of: GradOf, step: int) -> Slope:
        value, grads = self.inner(params, here, grad_of, step)
        size = sum(whole(p.detach().abs().sum()).item() for p in params)
        added = tuple(g + self.l1 * p.detach().sign() for g, p in zip(grads, params, strict=True))
        return Slope(value + self.l1 * size, added)


ENDINGS = {
    "sam": Ending(SAM, lab={"rho": 0.05}),
    "rs": Ending(RandomSmoothing, lab={"sigma": 1e-4}),
}
