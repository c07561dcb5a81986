"""Masks on disk: safetensors with one bit for each weight, and a record of how they were made."""

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
"""The entry of the file's metadata that holds its record, as JSON."""


def pack(mask: Bool[Tensor, "..."]) -> UInt8[Tensor, " bytes"]:
    """Eight entries a byte, the first in the highest bit."""
    return torch.from_numpy(np.packbits(mask.flatten().cpu().numpy()))


def unpack(packed: UInt8[Tensor, " bytes"], shape: Iterable[int]) -> Bool[Tensor, "..."]:
    """The mask that was packed."""
    shape = tuple(shape)
    bits = np.unpackbits(packed.numpy(), count=prod(shape))
    return torch.from_numpy(bits.view(np.bool_)).view(shape)


def save_mask(
    path: Path, mask: Iterable[tuple[str, Bool[Tensor, "..."]]], record: Mapping[str, Any]
) -> None:
    """Write a mask in one move; ``record`` says how it was made and for which model.

    The bits are collected in one growing block: kept apart, each would pin freed memory behind it.
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
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ValueError(f"mask {self.path} is damaged in its record: make it again")
        return found

    def __iter__(self) -> Iterator[tuple[str, Bool[Tensor, "..."]]]:
        """Name and mask of each weight."""
        shapes = self.record.get("shapes")
        with open_mask(self.path) as file:
            for name in file.keys():  # noqa: SIM118, not a dict
                found = file.get_tensor(name)
                yield name, self.whole(name, found, shapes)

    def whole(self, name: str, found: Tensor, shapes: Mapping[str, Any] | None) -> Tensor:
        """A tensor as booleans, checked: files come from anywhere."""
        if shapes is None:
            if found.dtype != torch.bool:
                raise ValueError(f"mask {self.path}: {name} is {found.dtype}, wanted bool")
            return found
        shape: list[Any] = list(shapes.get(name, ()))
        whole = name in shapes and all(isinstance(n, int) and n >= 0 for n in shape)
        if not whole or found.dtype != torch.uint8 or found.numel() != -(-prod(shape) // 8):
            raise ValueError(f"mask {self.path} is damaged at {name}: make it again")
        return unpack(found, shape)


def open_mask(path: Path) -> Any:
    """Open the file, or say what is wrong with it."""
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
    """Read a mask made for ``model``; weights that it does not name may not move.

    ``weights`` is the hash of the model's weights. A mask with another one in its record is
    refused; one without record, written by hand, fits any model of that shape.
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
    """The mask where the model's weights are, false where it says nothing; ``what`` is for errors.

    Of sharded weights each process keeps its part, and no more than one tensor whole meanwhile.
    """
    named = dict(model.named_parameters())
    found = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in named.items()}
    for name, each in mask:
        if name not in named:
            raise ValueError(f"{what} names weights that the model lacks, first: {name}")
        if each.shape != named[name].shape:
            shapes = f"{tuple(each.shape)}, the model's weight is {tuple(named[name].shape)}"
            raise ValueError(f"{what}: {name} is {shapes}")
        found[name] = laid_out(each, found[name])
    return found
