"""The decoder blocks of a Hugging Face model, and what its configuration says of its context."""

from functools import cache
from typing import Any

from torch import nn

from ilu.models.named import is_at_hand, reachable_path


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
    check_layer(layer, len(found))
    return found[layer]


def check_layer(layer: int, depth: int) -> None:
    """ValueError unless a model of ``depth`` blocks has block ``layer``."""
    if not 0 <= layer < depth:
        raise ValueError(
            f"layer {layer} is out of range: the model has {depth} blocks, "
            f"0 to {depth - 1}. Choose with `layer`, or what the method calls it (`layers`)."
        )


def context_length(model: nn.Module) -> int | None:
    """The longest sequence the model takes, if its configuration says."""
    config: Any = model.config
    return getattr(config, "max_position_embeddings", None)


@cache
def number_of_blocks(name: str, revision: str | None = None) -> int | None:
    """The decoder blocks of the model ``name``, by its configuration; None if that is not read.

    A configuration in the local cache is read without a request to the hub.
    """
    from transformers import AutoConfig

    try:
        config: Any = AutoConfig.from_pretrained(
            reachable_path(name, revision),
            revision=revision,
            trust_remote_code=False,
            local_files_only=is_at_hand(name, revision),
        )
        return int(config.get_text_config().num_hidden_layers)
    except (OSError, ValueError, AttributeError):
        return None  # an error of the model is reported when it is loaded
