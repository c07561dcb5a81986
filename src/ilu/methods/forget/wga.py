"""Weighted gradient ascent: push hardest on the tokens that are still known."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ilu.models.token_math import masked_mean
from ilu.types import Batch, Forward, Tokens


def wga(tokens: Tokens, *, beta: float) -> Float[Tensor, " B"]:
    """mean_t p_t^beta log p_t with the weight p_t^beta held constant (arXiv 2502.19301)."""
    weight = (beta * tokens.logp).exp().detach()
    return masked_mean(weight * tokens.logp, tokens.valid)


@dataclass(frozen=True)
class WGA:
    """Ascent whose weight on each token vanishes once the token is forgotten (arXiv 2502.19301)."""

    beta: float = 1.0
    needs_reference: ClassVar[bool] = False

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        return wga(forward.tokens(batch), beta=self.beta)
