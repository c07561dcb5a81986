"""Weighted gradient ascent: tokens that are still likely have larger weights."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ilu.methods.method import Method, Setup, forget_and_retain
from ilu.models.token_math import masked_mean
from ilu.types import Batch, Forward, Needs, Tokens


def wga(tokens: Tokens, *, beta: float) -> Float[Tensor, " B"]:
    """mean_t p_t^beta log p_t with the weight p_t^beta held constant (arXiv 2502.19301)."""
    weight = (beta * tokens.logp).exp().detach()
    return masked_mean(weight * tokens.logp, tokens.valid)


@dataclass(frozen=True)
class WGA:
    """Ascent with token weights that vanish as tokens become unlikely (arXiv 2502.19301)."""

    beta: float = 1.0
    needs = Needs()

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        return wga(forward.tokens(batch), beta=self.beta)


def wga_recipe(beta: float = 1.0, gamma: float = 1.0) -> Setup:
    """Ascent weighted by the probability of each token (WGA, arXiv 2502.19301).

    Args:
        beta: power of the probability in the weight.
        gamma: weight of the retain term.
    """
    return forget_and_retain(WGA(beta), 1.0, gamma)


METHODS = {
    "wga": Method(
        wga_recipe, 1e-5, 125, "beta: open-unlearning", lab={"lr": 1e-3, "gamma": 0.5, "steps": 100}
    ),
}
