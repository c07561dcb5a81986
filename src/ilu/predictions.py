"""What a model predicts on a batch, without the logits of every position.

Shape letters as in ``types.py``.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Head(NamedTuple):
    """The output layer of a model: logits are a linear map of its last hidden states.

    Then they are multiplied by ``scale`` (Cohere, Granite) and softly capped at ``cap`` (Gemma).
    ``dtype`` is that of the product, where it is not that of the weight, as under autocast.
    """

    weight: Float[Tensor, "V D"]
    bias: Float[Tensor, " V"] | None = None
    scale: float = 1.0
    cap: float | None = None
    dtype: torch.dtype | None = None

    def __call__(self, states: Float[Tensor, "... D"]) -> Float[Tensor, "... V"]:
        dtype = self.dtype or self.weight.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        z = F.linear(states.to(dtype), self.weight.to(dtype), bias)
        z = z if self.scale == 1 else z * self.scale
        return z if self.cap is None else self.cap * (z / self.cap).tanh()


@dataclass(frozen=True)
class Outputs:
    """What a model predicts on a batch: ``logits[:, s]`` predicts ``targets[:, s]``.

    Made from the states before the output layer, and only where a loss asks for them: of all B S V
    logits most losses need little. Without a ``head``, ``states`` are the logits.
    """

    states: Float[Tensor, "B S D"]
    targets: Int[Tensor, "B S"]
    head: Head | None = None

    @property
    def logits(self) -> Float[Tensor, "B S V"]:
        """Of every position."""
        return self.states if self.head is None else self.head(self.states)

    @property
    def vocabulary(self) -> int:
        """How many logits there are at a position."""
        return self.states.shape[-1] if self.head is None else len(self.head.weight)


@dataclass(frozen=True)
class Tokens:
    """Log-probability of each target token and entropy of its prediction, in nats.

    Both are 0 where a target does not count; the entropy is there if it was asked for.
    """

    logp: Float[Tensor, "B S"]
    valid: Bool[Tensor, "B S"]
    entropies: Float[Tensor, "B S"] | None = None

    @property
    def entropy(self) -> Float[Tensor, "B S"]:
        """Entropy of each prediction."""
        assert self.entropies is not None, "entropy was not asked for"
        return self.entropies

    def sum(self) -> Float[Tensor, " B"]:
        """Log-probability of each whole answer."""
        return self.logp.sum(-1)

    def mean(self) -> Float[Tensor, " B"]:
        """Log-probability per answer token, averaged within each example."""
        return self.logp.sum(-1) / self.valid.sum(-1).clamp_min(1)
