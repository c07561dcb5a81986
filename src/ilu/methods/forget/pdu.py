"""Logit-margin flattening: no token may stand out."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from ilu.models.token_math import answered, at_least_float32, masked_mean
from ilu.types import Batch, Forward


def margin(logits: Float[Tensor, "B S V"], targets: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
    """mean_t (max_v z_tv - mean_v z_tv)^2 over answer tokens (arXiv 2506.05314)."""
    z = at_least_float32(logits)
    return masked_mean((z.amax(-1) - z.mean(-1)).square(), answered(targets))


@dataclass(frozen=True)
class Flatten:
    """The forget term of PDU, primal-dual unlearning (arXiv 2506.05314).

    The released code takes its mask from unshifted labels and flattens one position too late.
    """

    needs_reference: ClassVar[bool] = False

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        out = forward(batch)
        return margin(out.logits, out.targets)
