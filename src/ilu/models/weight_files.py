"""The files of weights in a model folder, as ``from_pretrained`` chooses and reads them."""

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

CHOICES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Files that may hold the weights or name the files that do; the first that exists is read."""
INDEX = ".index.json"


def weight_files(folder: Path) -> list[Path]:
    """The files of a model folder that hold its weights.

    Other files there, such as an optimiser's state, a copy in another layout
    (``consolidated.safetensors``) or shards of an earlier save, are no weights of the model.
    """
    named = settings(folder).get("transformers_weights")
    for choice in (*([named] if named else []), *CHOICES):
        path = folder / choice
        if path.is_file():
            return shards_named_in(path) if choice.endswith(INDEX) else [path]
    raise ValueError(
        f"{folder} has no weights of a model: it needs {CHOICES[0]}, or {CHOICES[1]} with the "
        "files that it names"
    )


def shards_named_in(index: Path) -> list[Path]:
    """The files that an index names; ValueError if one is missing."""
    named = json_of(index).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(n, str) for n in named.values()):
        raise ValueError(f"{index} is damaged: it names no files of weights")
    names = named.values()
    shards = [index.parent / name for name in sorted(set(names))]
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise ValueError(f"{index} names {missing[0]}, which is not there: copy the whole folder")
    return shards


def settings(folder: Path) -> dict[str, Any]:
    """The configuration of a model folder; empty without one."""
    path = folder / "config.json"
    return json_of(path) if path.is_file() else {}


def json_of(path: Path) -> dict[str, Any]:
    """The object in a JSON file; ValueError for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged: it holds a {type(found).__name__}, not an object")
    return found


@contextmanager
def opened(file: Path) -> Generator[Any]:
    """A safetensors file; ValueError for one that is damaged."""
    try:
        with safe_open(file, framework="pt") as weights:
            yield weights
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged: {error}") from None


@dataclass(frozen=True)
class FileWeights:
    """The weights in safetensors files of a folder under the names that they have there."""

    folder: Path

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each weight; no weight is read."""
        return {name: shape for name, (_, shape) in weight_index(self.folder).items()}

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Some rows of a weight."""
        file, shape = weight_index(self.folder)[name]
        with opened(file) as weights:
            return weights.get_slice(name)[start:stop] if shape else weights.get_tensor(name)


@lru_cache(maxsize=8)
def weight_index(folder: Path) -> Mapping[str, tuple[Path, tuple[int, ...]]]:
    """Weight -> its file and its shape; ValueError if two files hold it."""
    found: dict[str, tuple[Path, tuple[int, ...]]] = {}
    for file in weight_files(folder):
        with opened(file) as weights:
            for name in weights.keys():  # noqa: SIM118, not a dict
                if name in found:
                    raise ValueError(
                        f"{folder} has {name} twice, in {found[name][0].name} and {file.name}"
                    )
                found[name] = file, tuple(weights.get_slice(name).get_shape())
    return found


def are_safetensors(folder: Path) -> bool:
    """Whether the weights of a folder are there and can be read in pieces."""
    try:
        return all(file.suffix == ".safetensors" for file in weight_files(folder))
    except ValueError:
        return False


def weight_dtype(folder: Path) -> torch.dtype:
    """The precision in which most of the numbers in safetensors files are."""
    counts: dict[torch.dtype, int] = {}
    for name, shape in FileWeights(folder).shapes().items():
        dtype = FileWeights(folder).rows(name, 0, 1).dtype
        counts[dtype] = counts.get(dtype, 0) + prod(shape)
    return max(counts, key=lambda dtype: counts[dtype])
