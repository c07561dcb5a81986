"""WAGLE: attribution of weights to forgetting, corrected for their effect on retaining."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ilu.methods.masks.scores import Evidence, Seen


def wagle(
    theta: Float[Tensor, "*shape"],
    g_f: Float[Tensor, "*shape"],
    g_r: Float[Tensor, "*shape"],
    *,
    curvature: float | Float[Tensor, "*shape"],
) -> Float[Tensor, "*shape"]:
    """(theta - g_r / h) g_f, h the diagonal of the retain loss's Hessian (arXiv 2410.17509).

    This is the first-order effect on the forget loss of gating a weight while the retain loss stays
    at its optimum: dl_f/de_i = theta_i g_f,i + g_f' dtheta*/de, with dtheta*/de = -H_r^-1 g_r. The
    paper has a constant h = mu. Its released code sums gradients over batches in bfloat16, which
    effectively divides mu by the number of batches; here they are means in float32.
    """
    return (theta - g_r / curvature) * g_f


@dataclass(frozen=True)
class Wagle:
    """WAGLE: effect of a weight on the forget loss at an optimal retain loss (arXiv 2410.17509).

    Args:
        mu: curvature of the retain loss; by default both terms get the same mean absolute value.
    """

    mu: float | None = None
    needs: ClassVar[tuple[Evidence, ...]] = ("forget", "retain")

    def __post_init__(self) -> None:
        check_mu(self.mu)

    def __call__(self, name: str, theta: Tensor, seen: Seen) -> Tensor:
        assert seen.forget is not None
        assert seen.retain is not None
        assert self.mu is not None, "mu is chosen before anything is scored"
        return wagle(theta, seen.forget, seen.retain, curvature=self.mu)


@dataclass(frozen=True)
class FisherWagle:
    """WAGLE with the diagonal of the empirical Fisher matrix as curvature (after arXiv 2410.17509).

    The Fisher diagonal is that of the retain loss per example, plus ``mu``. Ours: the paper has
    only mu.

    Args:
        mu: added to the curvature; by default the mean of the Fisher diagonal.
    """

    mu: float | None = None
    needs: ClassVar[tuple[Evidence, ...]] = ("forget", "retain", "fisher")

    def __post_init__(self) -> None:
        check_mu(self.mu)

    def __call__(self, name: str, theta: Tensor, seen: Seen) -> Tensor:
        assert seen.forget is not None
        assert seen.retain is not None
        assert seen.fisher is not None
        assert self.mu is not None, "mu is chosen before anything is scored"
        return wagle(theta, seen.forget, seen.retain, curvature=seen.fisher + self.mu)


def check_mu(mu: float | None) -> None:
    """ValueError unless mu is None or positive and finite."""
    if mu is not None and not 0 < mu < float("inf"):
        raise ValueError(f"`mu` {mu}: it must be above 0, or left out to balance the two terms")
