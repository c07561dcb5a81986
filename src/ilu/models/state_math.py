"""Distances between hidden states, over real tokens only."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ilu.models.token_math import at_least_float32, masked_mean
from ilu.types import Batch, Forward


def state_distance(
    hidden: Float[Tensor, "B T D"],
    target: Float[Tensor, "... D"],
    attention_mask: Int[Tensor, "B T"],
) -> Float[Tensor, " B"]:
    """Squared distance per coordinate, averaged over the real tokens of each example."""
    error = at_least_float32(hidden) - at_least_float32(target)
    return masked_mean(error.square().mean(-1), attention_mask.bool())


def mean_state_norm(
    hidden: Float[Tensor, "B T D"], attention_mask: Int[Tensor, "B T"]
) -> Float[Tensor, ""]:
    """Mean norm of the states of the real tokens, without the first token of each text.

    In many models the first token has a norm that is several times that of all others.
    """
    later = without_first(attention_mask, 1).bool()
    return at_least_float32(hidden).norm(dim=-1)[later].mean()


def without_first(attention_mask: Int[Tensor, "B T"], count: int) -> Int[Tensor, "B T"]:
    """The mask of padded texts with the first ``count`` tokens of each left out."""
    positions = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    return attention_mask * (positions >= count)


def compare_states(
    compare: Callable[[Float[Tensor, "B T D"], Float[Tensor, "B T D"]], Float[Tensor, "B T"]],
    layers: Sequence[int],
    models: tuple[Forward, Forward],
    batch: Batch,
) -> Float[Tensor, " B"]:
    """Compare two models' states at every real token of the blocks ``layers``; mean over both."""
    each: list[Tensor] = []
    for layer in layers:
        states = [at_least_float32(model.hidden(batch, layer)) for model in models]
        each.append(masked_mean(compare(*states), batch.attention_mask.bool()))
    return torch.stack(each).mean(0)


def check_layers(layers: Sequence[int]) -> None:
    """Refuse to compare nothing."""
    if not layers:
        raise ValueError("layers is empty: name at least one block, 0 is the first")
