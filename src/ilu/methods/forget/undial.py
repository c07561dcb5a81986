"""UNDIAL: self-distillation with a lowered logit of the true token."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from ilu.methods.method import Method, Setup, forget_and_retain
from ilu.models.token_math import answered, masked_mean, one_hot_targets, token_cross_entropy
from ilu.types import Batch, Forward, Needs


def undial(
    logits: Float[Tensor, "B S V"],
    teacher_logits: Float[Tensor, "B S V"],
    targets: Int[Tensor, "B S"],
    *,
    beta: float,
) -> Float[Tensor, " B"]:
    """CE(softmax(z_teacher - beta onehot(y)), softmax(z)) per answer token (arXiv 2402.10052)."""
    adjusted = teacher_logits - beta * one_hot_targets(targets, teacher_logits)
    return masked_mean(token_cross_entropy(adjusted, logits), answered(targets))


@dataclass(frozen=True)
class UNDIAL:
    """Self-distillation from adjusted logits (arXiv 2402.10052), over answer tokens only.

    The released code includes prompt and padding, and its label -100 changes vocabulary entry V -
    100.
    """

    beta: float = 10.0
    needs = Needs(reference=True, logits=7.25)

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        out, ref = forward(batch), reference(batch)
        return undial(out.logits, ref.logits, out.targets, beta=self.beta)


def undial_recipe(beta: float = 10.0, gamma: float = 1.0) -> Setup:
    """Self-distillation with a lowered logit of the true token (UNDIAL, arXiv 2402.10052).

    Args:
        beta: amount subtracted from that logit.
        gamma: weight of the retain term, which the paper does not have.
    """
    return forget_and_retain(UNDIAL(beta), 1.0, gamma)


METHODS = {
    "undial": Method(
        undial_recipe,
        1e-4,
        125,
        "lr and beta: open-unlearning",
        lab={"lr": 1e-3, "beta": 30.0, "gamma": 0.3, "steps": 200},
    ),
}
