"""SatImp: weight tokens by how far they are from forgotten and by how much they matter."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from ilu.losses.tokens import masked_mean, token_logp
from ilu.types import Batch, Forward


def satimp(
    logits: Float[Tensor, "B S V"],
    targets: Int[Tensor, "B S"],
    *,
    saturation: float,
    importance: float,
) -> Float[Tensor, " B"]:
    """mean_t p^saturation (1 - p)^importance log p, weights held constant (arXiv 2505.11953)."""
    logp, valid = token_logp(logits, targets)
    p = logp.detach().exp()
    return masked_mean(p**saturation * (1 - p).clamp_min(0) ** importance * logp, valid)


@dataclass(frozen=True)
class SatImp:
    """Ascent weighted by saturation and importance (arXiv 2505.11953).

    A token with p = 1 has weight 0: what is known perfectly is left alone.
    """

    saturation: float = 5.0
    importance: float = 1.0
    needs_reference: ClassVar[bool] = False

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        out = forward(batch)
        return satimp(
            out.logits, out.targets, saturation=self.saturation, importance=self.importance
        )
