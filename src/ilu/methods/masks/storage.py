"""Masks on disk: safetensors with one bit per weight, and a record of their origin."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ilu.system.atomic import new_file
from ilu.system.distributed import laid_out
from ilu.types import Mask

KEY = "ilu_mask"
"""Key of the record (JSON) in the file's metadata."""


def pack(mask: Bool[Tensor, "..."]) -> UInt8[Tensor, " bytes"]:
    """Eight entries per byte, the first in the highest bit."""
    return torch.from_numpy(np.packbits(mask.flatten().cpu().numpy()))


def unpack(packed: UInt8[Tensor, " bytes"], shape: Iterable[int]) -> Bool[Tensor, "..."]:
    """The mask that ``pack`` packed."""
    shape = tuple(shape)
    bits = np.unpackbits(packed.numpy(), count=prod(shape))
    return torch.from_numpy(bits.view(np.bool_)).view(shape)


def save_mask(
    path: Path, mask: Iterable[tuple[str, Bool[Tensor, "..."]]], record: Mapping[str, Any]
) -> None:
    """Write a mask atomically; ``record`` describes how it was made and for which model.

    The bits are collected in one growing buffer: separate small buffers would fragment the memory.
    """
    shapes: dict[str, list[int]] = {}
    bits, sizes = bytearray(), list[int]()
    for name, each in mask:
        part = pack(each).numpy().tobytes()
        shapes[name] = list(each.shape)
        sizes.append(len(part))
        bits += part
    packed = dict(zip(shapes, torch.frombuffer(bits, dtype=torch.uint8).split(sizes), strict=True))
    metadata = {KEY: json.dumps({**record, "shapes": shapes}, allow_nan=False)}
    with new_file(path) as half:
        save_file(packed, half, metadata=metadata)


@dataclass(frozen=True)
class MaskFile:
    """A mask on disk, read a tensor at a time; a file of plain booleans has an empty record."""

    path: Path

    @property
    def record(self) -> dict[str, Any]:
        """How the mask was made, and for which model."""
        with open_mask(self.path) as file:
            text = (file.metadata() or {}).get(KEY, "{}")
        try:
            record = json.loads(text)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise ValueError(f"mask {self.path} is damaged in its record: make it again")
        return record

    def __iter__(self) -> Iterator[tuple[str, Bool[Tensor, "..."]]]:
        """Name and mask of each weight."""
        shapes = self.record.get("shapes")
        with open_mask(self.path) as file:
            for name in file.keys():  # noqa: SIM118, not a dict
                yield name, self.unpacked(name, file.get_tensor(name), shapes)

    def unpacked(self, name: str, stored: Tensor, shapes: Mapping[str, Any] | None) -> Tensor:
        """A tensor as booleans; ValueError for one that does not fit the record."""
        if shapes is None:
            if stored.dtype != torch.bool:
                raise ValueError(f"mask {self.path}: {name} is {stored.dtype}, wanted bool")
            return stored
        shape: list[Any] = list(shapes.get(name, ()))
        known = name in shapes and all(isinstance(n, int) and n >= 0 for n in shape)
        if not known or stored.dtype != torch.uint8 or stored.numel() != -(-prod(shape) // 8):
            raise ValueError(f"mask {self.path} is damaged at {name}: make it again")
        return unpack(stored, shape)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each weight, without reading its bits."""
        recorded = self.record.get("shapes")
        if recorded is not None:
            return {name: tuple(shape) for name, shape in recorded.items()}
        with open_mask(self.path) as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def check_shapes(mask: MaskFile, model: nn.Module) -> None:
    """ValueError for a mask of weights that the model lacks or that have other shapes there."""
    found = {name: tuple(p.shape) for name, p in model.named_parameters()}
    for name, shape in mask.shapes().items():
        check_shape(f"mask {mask.path}", name, shape, found)


def check_shape(
    what: str, name: str, shape: tuple[int, ...], model: Mapping[str, tuple[int, ...]]
) -> None:
    """ValueError unless the model has a weight of that name and shape."""
    if name not in model:
        raise ValueError(f"{what} names weights that the model lacks, first: {name}")
    if shape != model[name]:
        raise ValueError(f"{what}: {name} is {shape}, the model's weight is {model[name]}")


def open_mask(path: Path) -> Any:
    """Open the file; ValueError if it is missing or damaged."""
    if not path.is_file():
        raise ValueError(
            f"mask {path} does not exist: make one with ilu mask, or give SCORE:FRACTION, "
            "such as wagle:0.9"
        )
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(
            f"mask {path} is not a safetensors file ({error}); for one ending in .pt see "
            "ilu mask convert"
        ) from None


def load_mask(path: Path, model: nn.Module, weights: str | None = None) -> Mask:
    """Read a mask made for ``model``. Weights that it does not name are fixed.

    ``weights`` is the hash of the model's weights. ValueError if the record of the mask has another
    hash. A mask without a record, written by hand, fits any model of its shapes.
    """
    stored = MaskFile(path)
    made_for = stored.record.get("model")
    if weights is not None and made_for not in (None, weights):
        raise ValueError(
            f"mask {path} was made for a model with other weights (its record says "
            f"{str(made_for)[:12]}, this model has {weights[:12]}): make one for this model"
        )
    return fitted(stored, model, f"mask {path}")


def fitted(
    mask: Iterable[tuple[str, Bool[Tensor, "..."]]], model: nn.Module, what: str
) -> dict[str, Tensor]:
    """The mask on the device of each weight, false for weights that it does not name.

    For sharded weights each process keeps its shards, and has at most one full tensor in memory.
    ``what`` names the mask in errors.
    """
    named = dict(model.named_parameters())
    shapes = {name: tuple(p.shape) for name, p in named.items()}
    full = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in named.items()}
    for name, each in mask:
        check_shape(what, name, tuple(each.shape), shapes)
        full[name] = laid_out(each, full[name])
    return full
