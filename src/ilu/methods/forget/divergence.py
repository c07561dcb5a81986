"""Forgetting by moving probability to where the original model has none."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ilu.models.lm_head_loss import per_token
from ilu.models.token_math import answered, masked_mean, token_cross_entropy
from ilu.types import Batch, Forward


@dataclass(frozen=True)
class Divergence:
    """-H(p, p_original) per answer token: the ``KL`` forgetting of WAGLE (arXiv 2410.17509).

    Called a KL there, but it is the cross-entropy, and only so can it work: minus a true KL has no
    gradient at the original model, where every run starts. Bounded by the least likely token.
    """

    needs_reference: ClassVar[bool] = True

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        out, ref = forward(batch), reference(batch)
        return -masked_mean(per_token(token_cross_entropy, out, ref), answered(out.targets))
