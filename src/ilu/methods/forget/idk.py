"""Refusal training: cross-entropy on a refusal to each forget prompt (PO, or IDK)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ilu.data.stream import counterpart
from ilu.methods.method import Method, Retain, Setup, forget_and_retain, refusing
from ilu.methods.published import TOFU, WAGLE
from ilu.types import Batch, Forward, Needs


@dataclass(frozen=True)
class Refusal:
    """Cross-entropy of a refusal after each forget prompt: PO, or IDK (TOFU, arXiv 2401.06121)."""

    needs = Needs()

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        return -forward.tokens(counterpart(batch, 0, "refusal")).mean()


def po(gamma: float = 1.0, retain_loss: Retain = "nll") -> Setup:
    """Fine-tune on refusals to the forget prompts (PO, or IDK; TOFU, arXiv 2401.06121).

    Args:
        gamma: weight of the retain term.
        retain_loss: likelihood, or a divergence from the original model: nll, kl, jsd.
    """
    return refusing(forget_and_retain(Refusal(), 1.0, gamma, retain_loss))


METHODS = {
    "po": Method(
        po, 1e-5, 125, "lr and gamma: TOFU; WAGLE has lr 2e-5", lab={"lr": 3e-3, "steps": 200}
    ),
    "tofu-po-wagle": Method(po, 2e-5, 500, WAGLE, {**TOFU, "warmup": 50, "mask": "wagle:0.8"}),
}
