"""Circuit breakers: turn representations away from where they were."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ilu.losses.tokens import at_least_float32, masked_mean
from ilu.types import Batch, Forward


@dataclass(frozen=True)
class Reroute:
    """relu(cos(h, h_original)) over real tokens and the blocks ``layers`` (arXiv 2406.04313).

    Representation rerouting is done once the two are orthogonal.
    """

    layers: tuple[int, ...] = (10, 20)
    needs_reference: ClassVar[bool] = True

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        each = [self.at(layer, forward, reference, batch) for layer in self.layers]
        return torch.stack(each).mean(0)

    def at(
        self, layer: int, forward: Forward, reference: Forward, batch: Batch
    ) -> Float[Tensor, " B"]:
        """The same for one block."""
        hidden, original = (at_least_float32(f.hidden(batch, layer)) for f in (forward, reference))
        return masked_mean(
            F.cosine_similarity(hidden, original, dim=-1).relu(), batch.attention_mask.bool()
        )
