"""Simple negative preference optimisation: NPO without a reference model."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ilu.methods.forget.npo import check_beta
from ilu.methods.method import Method, Setup, forget_and_retain
from ilu.methods.published import SMOOTH
from ilu.types import Batch, Forward, Needs


def simnpo(nll: Float[Tensor, " B"], *, beta: float, margin: float) -> Float[Tensor, " B"]:
    """-(2/beta) log sigmoid(beta (nll - margin)), where nll is *per token*.

    arXiv 2410.07163 writes beta nll - gamma; the authors' code (TOFU/dataloader.py) puts the margin
    inside the bracket, as here, so gamma = beta margin. They agree at 0, the published setting.
    """
    return -(2 / beta) * F.logsigmoid(beta * (nll - margin))


@dataclass(frozen=True)
class SimNPO:
    """SimNPO on length-normalised answers (arXiv 2410.07163)."""

    beta: float = 2.5
    margin: float = 0.0
    needs = Needs()

    def __post_init__(self) -> None:
        check_beta(self.beta)

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        return simnpo(-forward.tokens(batch).mean(), beta=self.beta, margin=self.margin)

    def caution(self, forward: Forward, batch: Batch) -> str:
        """A loss that is saturated before training has no gradient."""
        with torch.no_grad():
            nll = -forward.tokens(batch).mean().mean().item()
        weight = 2 / (1 + math.exp(min(self.beta * (nll - self.margin), 700)))
        if weight > SATURATED:
            return ""
        return (
            f"`beta` {self.beta:g} is too large for a loss of {nll:.3g} per token: the gradient of "
            f"the forget term is {weight:.1g} times that of ascent; about "
            f"{BETA:g} would do"
        )


def simnpo_recipe(
    beta: float = 4.5, margin: float = 0.0, gamma: float = 1.0, forget_weight: float = 0.125
) -> Setup:
    """NPO without a reference model, per token (arXiv 2410.07163).

    Args:
        beta: how early the loss of an answer saturates.
        margin: loss per token at which the sigmoid is 1/2, inside the bracket.
        gamma: weight of the retain term.
        forget_weight: weight of the forget term.
    """
    return forget_and_retain(SimNPO(beta, margin), forget_weight, gamma)


BETA = 0.1
"""Chosen on SmolLM2: see the log."""
SATURATED = 0.05
"""Weight of the gradient, of at most 2, below which a loss hardly trains."""
METHODS = {
    "simnpo": Method(
        simnpo_recipe,
        1e-5,
        125,
        "TOFU forget10 runs of the authors",
        measured={
            "lr": 5e-5,
            "steps": 25,
            "passes": 0.7,
            "batch_size": 8,
            "beta": BETA,
            "forget_weight": 1.0,
        },
        lab={"lr": 1e-3, "beta": 0.5, "forget_weight": 1.0},
    ),
    "wmdp-simnpo": Method(
        simnpo_recipe,
        9.5e-6,
        125,
        "lr, beta, gamma: released code; forget weight, 125 steps and the rest as wmdp-npo",
        {**SMOOTH, "beta": 0.1, "forget_weight": 1.0},
    ),
}
