"""Random smoothing: the mean gradient at random points around the weights."""

from dataclasses import dataclass

import torch

from ilu.methods.ending import Ending
from ilu.methods.robust.perturb import move, restored, weighted_sum
from ilu.system.distributed import laid_out
from ilu.types import Copies, GradHere, GradOf, Params, Slope


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
            raise ValueError(f"`samples` {self.samples}: random smoothing needs at least 1")

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


ENDINGS = {"rs": Ending(RandomSmoothing, lab={"sigma": 1e-4})}
