"""The decoder blocks of a Hugging Face model, and what its configuration says of its context."""

from typing import Any

from torch import nn


def blocks(model: nn.Module) -> nn.ModuleList:
    """The decoder blocks: the one ``ModuleList`` as long as the model has layers."""
    depth = model.config.num_hidden_layers  # pyright: ignore[reportAttributeAccessIssue]
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if not lists:
        raise ValueError(f"found no list of {depth} decoder blocks in {type(model).__name__}")
    return lists[0]


def block(model: nn.Module, layer: int) -> nn.Module:
    """Decoder block ``layer``, counted from 0."""
    found = blocks(model)
    if not 0 <= layer < len(found):
        raise ValueError(
            f"layer {layer} is out of range: the model has {len(found)} blocks, "
            f"0 to {len(found) - 1}. Choose with `layer`, or what the method calls it (`layers`)."
        )
    return found[layer]


def context_length(model: nn.Module) -> int | None:
    """The longest sequence the model takes, if its configuration says."""
    config: Any = model.config
    return getattr(config, "max_position_embeddings", None)
