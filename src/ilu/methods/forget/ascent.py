"""Gradient ascent on the likelihood of the forget set."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ilu.types import Batch, Forward


@dataclass(frozen=True)
class Ascent:
    """The negated likelihood loss, unbounded below: the baseline every paper reports.

    With a retain term it is GradDiff (TOFU, arXiv 2401.06121). Never compare it at a fixed number
    of steps: it does not stop by itself.
    """

    needs_reference: ClassVar[bool] = False

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        return forward.tokens(batch).mean()
