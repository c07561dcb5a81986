"""The decoder blocks of a Hugging Face model, and the context length in its configuration."""

from functools import cache
from typing import Any

from torch import nn

from ilu.models.named import is_at_hand, reachable_path


def blocks(model: nn.Module) -> nn.ModuleList:
    """The decoder blocks: the ``ModuleList`` as long as the text model has layers.

    A model that also reads images has such lists in its encoder, which do not count.
    """
    depth = text_config(model).num_hidden_layers
    for part in (decoder(model), model):
        for module in part.modules():
            if isinstance(module, nn.ModuleList) and len(module) == depth:
                return module
    raise ValueError(f"found no list of {depth} decoder blocks in {type(model).__name__}")


def text_config(model: Any) -> Any:
    """The configuration of the text model, which is a part of that of a multimodal model."""
    return model.config.get_text_config()


def decoder(model: Any) -> nn.Module:
    """The part of a model that reads text, by the name that Transformers has for it."""
    find = getattr(model, "get_decoder", None)
    part = None if find is None else find()
    return part if isinstance(part, nn.Module) else model


def block(model: nn.Module, layer: int) -> nn.Module:
    """Decoder block ``layer``; 0 is the first."""
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
    """The longest sequence that the configuration of a model allows, or None."""
    return getattr(text_config(model), "max_position_embeddings", None)


def number_of_blocks(name: str, revision: str | None = None) -> int | None:
    """The decoder blocks of the model ``name``, by its configuration; None if that is not read."""
    layers = getattr(configuration(name, revision), "num_hidden_layers", None)
    return None if layers is None else int(layers)


def context_of(name: str, revision: str | None = None) -> int | None:
    """``context_length`` of the model ``name``, which is not loaded."""
    return getattr(configuration(name, revision), "max_position_embeddings", None)


@cache
def configuration(name: str, revision: str | None = None) -> Any:
    """The configuration of the language model in ``name``; None if it cannot be read.

    One in the local cache is read without a request to the hub.
    """
    from transformers import AutoConfig

    try:
        config: Any = AutoConfig.from_pretrained(
            reachable_path(name, revision),
            revision=revision,
            trust_remote_code=False,
            local_files_only=is_at_hand(name, revision),
        )
        return config.get_text_config()
    except Exception:  # the libraries raise a different one for every cause
        return None  # it is reported when the model is loaded
