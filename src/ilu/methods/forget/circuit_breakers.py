"""Circuit breakers: turn representations away from where they were."""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ilu.models.state_math import check_layers, compare_states
from ilu.types import Batch, Forward


@dataclass(frozen=True)
class Reroute:
    """relu(cos(h, h_original)) over real tokens and the blocks ``layers`` (arXiv 2406.04313).

    Representation rerouting is done once the two are orthogonal.
    """

    layers: tuple[int, ...] = (9, 19)
    needs_reference: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_layers(self.layers)

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        return compare_states(positive_cosine, self.layers, (forward, reference), batch)


def positive_cosine(x: Float[Tensor, "B T D"], y: Float[Tensor, "B T D"]) -> Float[Tensor, "B T"]:
    """relu(cos(x, y)) at every token."""
    return F.cosine_similarity(x, y, dim=-1).relu()
