"""Negative preference optimisation."""

from dataclasses import dataclass, replace

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ilu.methods.method import Method, Retain, Setup, forget_and_retain
from ilu.methods.published import (
    BOOKS,
    LLAMA3,
    NEWS,
    ON_LLAMA3,
    SMOOTH,
    TOFU,
    WAGLE,
    WMDP,
    WMDP_STEPS,
)
from ilu.models.token_math import answered
from ilu.system.checks import two_digits
from ilu.types import Batch, Forward, Loss, Needs


def npo(
    nll: Float[Tensor, " B"], reference_nll: Float[Tensor, " B"], *, beta: float
) -> Float[Tensor, " B"]:
    """-(2/beta) log sigmoid(beta (nll - reference_nll)), eq. 3 of arXiv 2404.05868.

    Its gradient is that of ascent times W = 2 sigmoid(-beta (nll - reference_nll)). W is 1 at the
    reference (eq. 4) and approaches 0 as the answer becomes unlikely. For beta -> 0 it is ascent.
    """
    return -(2 / beta) * F.logsigmoid(beta * (nll - reference_nll))


@dataclass(frozen=True)
class NPO:
    """NPO on the sum over each answer's tokens, as in the paper (arXiv 2404.05868).

    On long texts the sum saturates the loss after a fraction of a nat per token: scale ``beta``
    down with length, or use ``TokenNPO``.
    """

    beta: float | None = 0.1
    needs = Needs(reference=True)

    def __post_init__(self) -> None:
        check_beta(self.beta)

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        if self.beta is None:
            raise ValueError("`beta` of NPO is not chosen yet: give a number")
        nll, reference_nll = (-f.tokens(batch).sum() for f in (forward, reference))
        return npo(nll, reference_nll, beta=self.beta)

    def calibrated(self, forward: Forward, batch: Batch) -> tuple[Loss, str]:
        """Choose beta from the tokens per answer (ours): longer answers saturate earlier."""
        if self.beta is not None:
            return self, ""
        tokens = answered(batch.labels).sum().item() / len(batch)
        chosen = two_digits(BETA_OF_A_TOKEN / tokens)
        return replace(self, beta=chosen), (
            f"beta {chosen:g}: {BETA_OF_A_TOKEN:g} / {tokens:.3g} tokens per answer"
        )


@dataclass(frozen=True)
class TokenNPO:
    """NPO on the mean over each answer's tokens (after arXiv 2404.05868).

    Its ``beta`` is about |y| times that of ``NPO``. The WMDP code of arXiv 2502.05374 takes one
    mean over the whole micro-batch, which makes examples depend on each other.
    """

    beta: float = 2.0
    needs = Needs(reference=True)

    def __post_init__(self) -> None:
        check_beta(self.beta)

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        nll, reference_nll = (-f.tokens(batch).mean() for f in (forward, reference))
        return npo(nll, reference_nll, beta=self.beta)


def check_beta(beta: float | None) -> None:
    """ValueError unless ``beta`` is positive or not chosen yet."""
    if beta is not None and beta <= 0:
        raise ValueError(f"`beta` {beta:g}: it must be above 0; for the limit 0 use ascent")


def npo_recipe(beta: float | None = 0.1, gamma: float = 1.0, retain_loss: Retain = "nll") -> Setup:
    """NPO on the sum over each answer's tokens, with a retain term (arXiv 2404.05868).

    Args:
        beta: how early the loss of an answer saturates; None chooses it by the tokens per answer.
        gamma: weight of the retain term.
        retain_loss: likelihood, or a divergence from the original model: nll, kl, jsd.
    """
    return forget_and_retain(NPO(beta), 1.0, gamma, retain_loss)


def token_npo_recipe(beta: float = 2.0, gamma: float = 1.0, retain_loss: Retain = "nll") -> Setup:
    """NPO on the mean over each answer's tokens (after arXiv 2404.05868).

    Args:
        beta: how early the loss of an answer saturates; about its length times that of npo.
        gamma: weight of the retain term.
        retain_loss: likelihood, or a divergence from the original model: nll, kl, jsd.
    """
    return forget_and_retain(TokenNPO(beta), 1.0, gamma, retain_loss)


BETA_OF_A_TOKEN = 0.25
"""Beta per token of an answer, chosen on SmolLM2: see the log."""
NPO_ON_MEANS = {"beta": 0.1}
"""The released code uses the ratio of the batch's token means; token-npo is closest to it."""
SCRIPTS = "lr, gamma, 125 steps, schedule, seed: scripts of 2502.05374"
ON_MUSE = "lr, batch, 2048 tokens: 2502.05374 on MUSE; beta ours, its code compares raw logits"
METHODS = {
    "npo": Method(
        npo_recipe,
        1e-5,
        125,
        f"lr, beta and gamma: TOFU runs of the authors; {WMDP_STEPS}",
        measured={"lr": 2e-5, "steps": 30, "passes": 1.0, "batch_size": 8, "beta": None},
        lab={"lr": 3e-4, "steps": 100, "batch_size": 16, "beta": 0.01},
        lab_ilu={"strength": 1e-3, "scale_free": False, "steps": 130},
    ),
    "token-npo": Method(
        token_npo_recipe, 1e-5, 125, "ours", lab={"lr": 3e-4, "beta": 0.5, "steps": 100}
    ),
    "tofu-npo-wagle": Method(
        token_npo_recipe,
        1e-5,
        400,
        WAGLE,
        {**TOFU, "warmup": 40, "mask": "wagle:0.95", **NPO_ON_MEANS},
    ),
    "wmdp-npo-wagle": Method(
        token_npo_recipe, 1e-5, 500, WAGLE, {**WMDP, "mask": "wagle:0.6", **NPO_ON_MEANS}
    ),
    "wmdp-npo": Method(
        token_npo_recipe,
        5e-6,
        125,
        f"{SCRIPTS}, beta of the batch's token mean",
        {**SMOOTH, "beta": 0.0225},
    ),
    "wmdp-npo-llama3": Method(
        token_npo_recipe, 5e-6, 125, f"{SCRIPTS}; {ON_LLAMA3}", {**SMOOTH, **LLAMA3, "beta": 0.0225}
    ),
    "muse-news-npo": Method(
        npo_recipe, 1e-5, 1020, f"{ON_MUSE}; 10 epochs", {**NEWS, "beta": 3e-3}
    ),
    "muse-books-npo": Method(npo_recipe, 1e-5, 139, f"{ON_MUSE}; 1 epoch", {**BOOKS, "beta": 3e-3}),
}
