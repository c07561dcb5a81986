"""Gradient ascent on the likelihood of the forget set."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ilu.methods.method import Method, Retain, Setup, forget_and_retain
from ilu.methods.published import TOFU, WAGLE, WMDP, WMDP_STEPS
from ilu.training.objective import Term
from ilu.types import Batch, Forward, Needs


@dataclass(frozen=True)
class Ascent:
    """The negated likelihood loss, which is unbounded below: the standard baseline.

    With a retain term it is GradDiff (TOFU, arXiv 2401.06121). Never compare it at a fixed number
    of steps, since it does not converge.
    """

    needs = Needs()

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        return forward.tokens(batch).mean()


def ascent() -> Setup:
    """Gradient ascent on the forget set, without a retain term (TOFU, arXiv 2401.06121)."""
    return Setup({"forget": Term(Ascent(), on="forget")})


def graddiff(gamma: float = 1.0, retain_loss: Retain = "nll") -> Setup:
    """Gradient ascent on the forget set, descent on the retain set (arXiv 2401.06121).

    Args:
        gamma: weight of the retain term.
        retain_loss: likelihood, or a divergence from the original model: nll, kl, jsd.
    """
    return forget_and_retain(Ascent(), 1.0, gamma, retain_loss)


def kl(gamma: float = 1.0) -> Setup:
    """Gradient ascent with a KL to the original model on the retain set (arXiv 2401.06121).

    Args:
        gamma: weight of the retain term.
    """
    return forget_and_retain(Ascent(), 1.0, gamma, "kl")


METHODS = {
    "ascent": Method(
        ascent,
        1e-5,
        125,
        f"lr: TOFU; {WMDP_STEPS}; unbounded, stop early",
        lab={"lr": 3e-4, "steps": 10},
    ),
    "graddiff": Method(
        graddiff,
        1e-5,
        125,
        f"lr and gamma: TOFU; {WMDP_STEPS}; unbounded, stop early",
        measured={"lr": 2e-5, "steps": 60, "passes": 1.5, "batch_size": 8},
        lab={"lr": 3e-4, "gamma": 3.0, "steps": 60},
    ),
    "kl": Method(
        kl,
        1e-5,
        125,
        f"lr: TOFU; {WMDP_STEPS}; unbounded, stop early",
        lab={"lr": 3e-4, "gamma": 3.0, "steps": 60},
    ),
    "tofu-graddiff-wagle": Method(
        graddiff, 7e-6, 500, WAGLE, {**TOFU, "warmup": 50, "mask": "wagle:0.95"}
    ),
    "wmdp-graddiff-wagle": Method(graddiff, 5e-6, 500, WAGLE, {**WMDP, "mask": "wagle:0.4"}),
}
