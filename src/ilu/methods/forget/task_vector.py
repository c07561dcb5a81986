"""Task-vector negation: learn the forget set, then go the other way."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ilu.types import Params


@dataclass(frozen=True)
class Negation:
    """theta - alpha (theta_finetuned - theta) (arXiv 2212.04089), in float32.

    A weight that did not move keeps its bits.
    """

    alpha: float = 1.0

    @torch.no_grad()
    def __call__(self, params: Params, original: Sequence[Tensor]) -> None:
        for p, start in zip(params, original, strict=True):
            p.copy_(start - self.alpha * (p - start))
