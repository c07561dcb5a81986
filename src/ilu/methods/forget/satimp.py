"""SatImp: gradient ascent with token weights for saturation and importance."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ilu.methods.method import Method, Setup, forget_and_retain
from ilu.models.token_math import masked_mean
from ilu.types import Batch, Forward, Needs, Tokens


def satimp(tokens: Tokens, *, saturation: float, importance: float) -> Float[Tensor, " B"]:
    """mean_t p^saturation (1 - p)^importance log p, weights held constant (arXiv 2505.11953)."""
    p = tokens.logp.detach().exp()
    weight = p**saturation * (1 - p).clamp_min(0) ** importance
    return masked_mean(weight * tokens.logp, tokens.valid)


@dataclass(frozen=True)
class SatImp:
    """Ascent weighted by saturation and importance (arXiv 2505.11953).

    A token with p = 1 has weight 0, so perfectly known tokens have no gradient.
    """

    saturation: float = 5.0
    importance: float = 1.0
    needs = Needs()

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        tokens = forward.tokens(batch)
        return satimp(tokens, saturation=self.saturation, importance=self.importance)


def satimp_recipe(
    saturation: float = 5.0,
    importance: float = 1.0,
    gamma: float = 1.0,
    forget_weight: float = 0.1,
) -> Setup:
    """Ascent weighted by saturation and importance (SatImp, arXiv 2505.11953).

    Args:
        saturation: power of p in the weight of a token.
        importance: power of 1 - p.
        gamma: weight of the retain term.
        forget_weight: weight of the forget term.
    """
    return forget_and_retain(SatImp(saturation, importance), forget_weight, gamma)


METHODS = {
    "satimp": Method(
        satimp_recipe,
        1e-5,
        125,
        "powers and weights: open-unlearning",
        lab={"lr": 1e-3, "saturation": 1.0, "forget_weight": 3.0, "steps": 100},
    ),
}
