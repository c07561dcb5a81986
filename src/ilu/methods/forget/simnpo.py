"""Simple negative preference optimisation: NPO without a reference model."""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ilu.methods.forget.npo import check_beta
from ilu.types import Batch, Forward


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
    needs_reference: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_beta(self.beta)

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        return simnpo(-forward.tokens(batch).mean(), beta=self.beta, margin=self.margin)
