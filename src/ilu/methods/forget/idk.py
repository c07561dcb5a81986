"""Preference optimisation in its simplest form: learn to refuse."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ilu.data.stream import counterpart
from ilu.types import Batch, Forward


@dataclass(frozen=True)
class Refusal:
    """Cross-entropy of a refusal to each forget prompt: PO, or IDK (TOFU, arXiv 2401.06121)."""

    needs_reference: ClassVar[bool] = False

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        return -forward.tokens(counterpart(batch, 0, "refusal")).mean()
