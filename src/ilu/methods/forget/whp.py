"""Who's Harry Potter: generic predictions from a model that knows too much."""

from dataclasses import dataclass, replace
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ilu.data.stream import counterpart
from ilu.models.lm_head_loss import tokens_of
from ilu.types import Batch, Forward


def offset_logits(
    plain: Float[Tensor, "... V"], reinforced: Float[Tensor, "... V"], *, alpha: float
) -> Float[Tensor, "... V"]:
    """v_generic = v - alpha relu(v_reinforced - v) (arXiv 2310.02238)."""
    return plain - alpha * (reinforced - plain).relu()


@dataclass(frozen=True)
class Generic:
    """Cross-entropy on the generic tokens that stand beside each text (arXiv 2310.02238).

    ``reinforce.py`` makes them from ``offset_logits``. The dictionary that replaces names in the
    paper, made by another language model, is left out.
    """

    needs_reference: ClassVar[bool] = False

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        generic = counterpart(batch, 0, "generic")
        return -tokens_of(replace(forward(batch), targets=generic.labels[:, 1:])).mean()
