"""Forgetting by moving probability to tokens that are unlikely to the original model."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ilu.methods.method import Method, Retain, Setup, forget_and_retain
from ilu.models.lm_head_loss import per_token
from ilu.models.token_math import answered, masked_mean, token_cross_entropy
from ilu.types import Batch, Forward, Needs


@dataclass(frozen=True)
class Divergence:
    """-H(p, p_original) per answer token: the ``KL`` forgetting of WAGLE (arXiv 2410.17509).

    WAGLE calls it a KL, but it is the cross-entropy. A negated KL would have no gradient at the
    original model, where every run starts. The loss is bounded by the least likely token.
    """

    needs = Needs(reference=True, logits=6, chunked=True)

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        out, ref = forward(batch), reference(batch)
        return -masked_mean(per_token(token_cross_entropy, out, ref), answered(out.targets))


def divergence(gamma: float = 1.0, retain_loss: Retain = "kl") -> Setup:
    """Move probability to tokens unlikely to the original model (WAGLE's KL, arXiv 2410.17509).

    Args:
        gamma: weight of the retain term.
        retain_loss: likelihood, or a divergence from the original model: nll, kl, jsd.
    """
    return forget_and_retain(Divergence(), 1.0, gamma, retain_loss)


METHODS = {
    "divergence": Method(
        divergence,
        1e-5,
        125,
        "ours; WAGLE leaves gamma to the user",
        lab={"lr": 3e-4, "gamma": 1.0, "steps": 60},
    ),
}
