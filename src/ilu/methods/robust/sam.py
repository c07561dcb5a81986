"""Sharpness-aware minimisation (SAM)."""

from dataclasses import dataclass

from ilu.methods.ending import Ending
from ilu.methods.robust.perturb import move, norm, restored
from ilu.types import Copies, GradHere, GradOf, Params, Slope


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
            raise ValueError(f"`rho` {self.rho}: the radius must be at least 0")

    def reads(self) -> tuple[str, ...]:
        return ()

    def __call__(self, params: Params, here: GradHere, grad_of: GradOf, step: int) -> Slope:
        _, grads = here()
        with restored(params):
            move(params, grads, self.rho / norm(grads))
            return here()


ENDINGS = {"sam": Ending(SAM, lab={"rho": 0.05})}
