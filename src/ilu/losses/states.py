"""Distances between hidden states, over real tokens only."""

from jaxtyping import Float, Int
from torch import Tensor

from ilu.losses.tokens import at_least_float32, masked_mean


def state_distance(
    hidden: Float[Tensor, "B T D"],
    target: Float[Tensor, "... D"],
    attention_mask: Int[Tensor, "B T"],
) -> Float[Tensor, " B"]:
    """Squared distance per coordinate, averaged over the real tokens of each example."""
    error = at_least_float32(hidden) - at_least_float32(target)
    return masked_mean(error.square().mean(-1), attention_mask.bool())
