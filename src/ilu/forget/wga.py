"""Weighted gradient ascent: push hardest on the tokens that are still known."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from ilu.losses.tokens import masked_mean, token_logp
from ilu.types import Batch, Forward


def wga(
    logits: Float[Tensor, "B S V"], targets: Int[Tensor, "B S"], *, beta: float
) -> Float[Tensor, " B"]:
    """mean_t p_t^beta log p_t with the weight p_t^beta held constant (arXiv 2502.19301)."""
    logp, valid = token_logp(logits, targets)
    return masked_mean((beta * logp).exp().detach() * logp, valid)


@dataclass(frozen=True)
class WGA:
    """Ascent whose weight on each token vanishes once the token is forgotten (arXiv 2502.19301)."""

    beta: float = 1.0
    needs_reference: ClassVar[bool] = False

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        out = forward(batch)
        return wga(out.logits, out.targets, beta=self.beta)
