"""Negative preference optimisation."""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ilu.types import Batch, Forward


def npo(
    nll: Float[Tensor, " B"], reference_nll: Float[Tensor, " B"], *, beta: float
) -> Float[Tensor, " B"]:
    """-(2/beta) log sigmoid(beta (nll - reference_nll)), eq. 3 of arXiv 2404.05868.

    Its gradient is that of ascent times W = 2 sigmoid(-beta (nll - reference_nll)), which is 1 at
    the reference (eq. 4) and vanishes once the answer is unlikely. As beta -> 0 it is ascent.
    """
    return -(2 / beta) * F.logsigmoid(beta * (nll - reference_nll))


@dataclass(frozen=True)
class NPO:
    """NPO on the sum over each answer's tokens, as in the paper (arXiv 2404.05868).

    On long texts the sum stops the method within a fraction of a nat per token: scale ``beta`` down
    with length, or use ``TokenNPO``.
    """

    beta: float = 0.1
    needs_reference: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_beta(self.beta)

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        nll, reference_nll = (-f.tokens(batch).sum() for f in (forward, reference))
        return npo(nll, reference_nll, beta=self.beta)


@dataclass(frozen=True)
class TokenNPO:
    """NPO on the mean over each answer's tokens (after arXiv 2404.05868).

    Its ``beta`` is about |y| times that of ``NPO``. The WMDP code of arXiv 2502.05374 takes one
    mean over the whole micro-batch, which makes examples depend on each other.
    """

    beta: float = 2.0
    needs_reference: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_beta(self.beta)

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        nll, reference_nll = (-f.tokens(batch).mean() for f in (forward, reference))
        return npo(nll, reference_nll, beta=self.beta)


def check_beta(beta: float) -> None:
    """Refuse the limit that has no value."""
    if beta <= 0:
        raise ValueError(f"beta is {beta}; it must be above 0. For the limit 0 use ascent.")
