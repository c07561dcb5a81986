"""CE-U: cross-entropy to the model's own prediction without the true token."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ilu.methods.method import Method, Setup, forget_and_retain
from ilu.models.token_math import (
    answered,
    at_least_float32,
    masked_mean,
    one_hot_targets,
    token_cross_entropy,
)
from ilu.types import Batch, Forward, Needs


def ceu(
    logits: Float[Tensor, "B S V"], targets: Int[Tensor, "B S"], *, skip: int
) -> Float[Tensor, " B"]:
    """CE(softmax(z with z_y = -inf), softmax(z)), the label held constant (arXiv 2503.01224).

    The first ``skip`` answer tokens have no loss, so that the model keeps the usual beginnings of
    answers. An answer of at most ``skip`` tokens has the value 0.
    """
    banned = one_hot_targets(targets, logits).bool()
    label = at_least_float32(logits).detach().masked_fill(banned, -torch.inf)
    valid = answered(targets)
    counted = valid & (valid.cumsum(-1) > skip)
    return masked_mean(token_cross_entropy(label, logits), counted)


@dataclass(frozen=True)
class CEU:
    """Cross-entropy unlearning (arXiv 2503.01224): bounded below and without retain data."""

    skip: int = 1
    needs = Needs(logits=6.5)

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        out = forward(batch)
        return ceu(out.logits, out.targets, skip=self.skip)


def ceu_recipe(skip: int = 1, gamma: float = 0.0) -> Setup:
    """Cross-entropy to the own prediction without the true token (CE-U, arXiv 2503.01224).

    Args:
        skip: number of first answer tokens without a loss.
        gamma: weight of a retain term, which the paper does not have.
    """
    return forget_and_retain(CEU(skip), 1.0, gamma)


METHODS = {
    "ceu": Method(
        ceu_recipe,
        1e-5,
        125,
        "skip: open-unlearning",
        lab={"lr": 1e-3, "gamma": 0.03, "steps": 100},
    ),
}
