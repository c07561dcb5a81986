"""Weights of a model folder, read in pieces under the names that the loaded model gives them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ilu.models.load import cause, pretrained
from ilu.models.named import check_name, reachable_path
from ilu.models.weight_files import FileWeights, are_safetensors, weight_files
from ilu.system.errors import out_of_memory

Sources = Mapping[str, str]
"""Name of a weight in the model -> its name in the files."""


class Layout(NamedTuple):
    """Shape of each weight of a model, and where each lies; None where it is not in the files."""

    shapes: Mapping[str, tuple[int, ...]]
    sources: Sources | None


@dataclass(frozen=True)
class StoredWeights:
    """The weights that ``from_pretrained`` would load from a folder.

    They are read from the files in pieces. Where the loader changes what is in the files (fused
    experts, quantised weights, pickled files), all weights are loaded once and kept in memory.
    """

    folder: Path

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each weight; those that are tied count once."""
        return dict(layout(self.folder).shapes)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Some rows of a weight."""
        sources = layout(self.folder).sources
        if sources is not None:
            return FileWeights(self.folder).rows(sources[name], start, stop)
        weight = loaded_weights(self.folder)[name]
        return weight[start:stop] if weight.ndim else weight


@lru_cache(maxsize=8)
def layout(folder: Path) -> Layout:
    """The weights of a folder; no weight is read."""
    weight_files(folder)
    model = skeleton(str(folder))
    shapes = {n: tuple(p.shape) for n, p in model.named_parameters()}
    return Layout(shapes, sources_of(model, folder))


@lru_cache(maxsize=4)
def loaded_weights(folder: Path) -> Mapping[str, Tensor]:
    """All weights of a folder in the precision that they have there."""
    model = pretrained(str(folder), str(folder), dtype="auto")
    return {n: p.detach() for n, p in model.named_parameters()}


def skeleton(name: str, revision: str | None = None) -> Any:
    """A model of float32 weights without storage, from its configuration; buffers have theirs."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    check_name(name, revision)
    path = reachable_path(name, revision)
    try:
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
        with init_empty_weights(include_buffers=False):
            model = AutoModelForCausalLM.from_config(
                config, trust_remote_code=False, dtype=torch.float32
            )
    except Exception as error:  # the libraries raise a different one for every cause
        if out_of_memory(error):
            raise
        raise ValueError(f"cannot read the configuration of {name!r}: {cause(error)}") from error
    model.tie_weights()  # every registration makes a parameter anew, so tied ones were separated
    return model


def sources_of(model: nn.Module, folder: Path) -> Sources | None:
    """The name in the files of each weight and buffer; None if the loader changes what is there.

    Of tied weights the files must have one. Weights of the files that the model lacks, such as the
    rotary frequencies of older versions, are not read, as in ``from_pretrained``.
    """
    config: Any = model.config
    quantised = getattr(config, "quantization_config", None)
    if quantised or converted_by_loader(model) or not are_safetensors(folder):
        return None
    shapes = FileWeights(folder).shapes()
    tied: dict[int, list[str]] = {}
    state = model.state_dict(keep_vars=True)
    for name, x in state.items():
        tied.setdefault(id(x), []).append(name)
    found = {
        names[0]: [each for name in names for each in names_in_files(model, name) if each in shapes]
        for names in tied.values()
    }
    if not all(len(n) == 1 and shapes[n[0]] == tuple(state[k].shape) for k, n in found.items()):
        return None
    return {name: where[0] for name, where in found.items()}


def names_in_files(model: nn.Module, name: str) -> list[str]:
    """The names that a weight may have: its own, or without the prefix of the model's body.

    Files that were saved from the body alone, such as those of GPT-2 on the hub, lack the prefix.
    """
    prefix = f"{model.base_model_prefix}."
    return [name, name.removeprefix(prefix)] if name.startswith(prefix) else [name]


def converted_by_loader(model: Any) -> bool:
    """Whether the loader renames, fuses or transposes weights of this architecture.

    Before it had a list of such conversions, its models had the weights of their files.
    """
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
    except ImportError:
        return False
    return bool(get_model_conversion_mapping(model, add_legacy=False))
