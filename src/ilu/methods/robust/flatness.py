"""Penalties on the gradient norm and the curvature of a term, by finite differences.

The code released with arXiv 2502.05374 adds both as Python numbers, which have no gradient. Here
they have their correct gradient.
"""

from dataclasses import dataclass

from ilu.methods.ending import Ending
from ilu.methods.robust.perturb import move, norm, restored
from ilu.system.checks import check_step
from ilu.types import Copies, GradHere, GradOf, Grads, Params, Slope


@dataclass(frozen=True)
class GradientPenalty:
    """l + ``penalty`` * |grad l| (GP, arXiv 2502.05374): one more gradient.

    Its gradient is g + penalty * H g / |g|. H g / |g| is a difference quotient along g with a step
    of ``radius`` times the norm of the weights. Published with token NPO on WMDP: penalty 10, lr
    7.5e-6, beta 0.04, gamma 1; the released code fixes the penalty at 0.01.

    Args:
        penalty: weight of the norm.
        radius: step of the difference quotient, relative to the norm of the weights.
    """

    penalty: float = 10.0
    radius: float = 3e-5
    power = None
    copies = Copies(3, 2)

    def __post_init__(self) -> None:
        check_step("radius", self.radius)

    def reads(self) -> tuple[str, ...]:
        return ()

    def __call__(self, params: Params, here: GradHere, grad_of: GradOf, step: int) -> Slope:
        value, g = here()
        size = norm(g)
        product = hessian_product(params, here, g, along=g, radius=self.radius)
        penalised = tuple(a + self.penalty * b for a, b in zip(g, product, strict=True))
        return Slope(value + self.penalty * size.item(), penalised)


@dataclass(frozen=True)
class CurvaturePenalty:
    """l + ``penalty`` * |grad l(theta + mu g/|g|) - grad l(theta)| (CR, arXiv 2502.05374).

    It costs three more gradients. The direction g/|g| is treated as constant. With d the difference
    and d' = d/|d|, the gradient is g + penalty * (H(theta + mu g/|g|) d' - H(theta) d'). Published
    with token NPO on WMDP: penalty 10, mu 0.01, lr 8.5e-6, beta 0.035, gamma 1.

    Args:
        penalty: weight of the norm.
        mu: distance along the gradient.
        radius: step of the difference quotients, relative to the norm of the weights.
    """

    penalty: float = 10.0
    mu: float = 0.01
    radius: float = 3e-5
    power = None
    copies = Copies(6, 5)

    def __post_init__(self) -> None:
        check_step("mu", self.mu)
        check_step("radius", self.radius)

    def reads(self) -> tuple[str, ...]:
        return ()

    def __call__(self, params: Params, here: GradHere, grad_of: GradOf, step: int) -> Slope:
        value, g = here()
        with restored(params):
            move(params, g, self.mu / norm(g))
            _, ahead = here()
            d = tuple(a - b for a, b in zip(ahead, g, strict=True))
            at_shifted = hessian_product(params, here, ahead, along=d, radius=self.radius)
        at_theta = hessian_product(params, here, g, along=d, radius=self.radius)
        triples = zip(g, at_shifted, at_theta, strict=True)
        penalised = tuple(a + self.penalty * (b - c) for a, b, c in triples)
        return Slope(value + self.penalty * norm(d).item(), penalised)


def hessian_product(
    params: Params, here: GradHere, g: Grads, *, along: Grads, radius: float
) -> Grads:
    """H times the unit vector along ``along``, from ``g`` and one more gradient."""
    size = radius * norm(list(params))
    with restored(params):
        move(params, along, size / norm(along))
        _, ahead = here()
    return tuple((a - b) / size for a, b in zip(ahead, g, strict=True))


ENDINGS = {
    "gp": Ending(GradientPenalty, lab={"penalty": 0.1}),
    "cr": Ending(CurvaturePenalty, lab={"penalty": 1.0}),
}
