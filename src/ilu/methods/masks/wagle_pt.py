"""Masks of the original WAGLE code: ``{task}_{ratio}.pt`` files in torch's pickle format."""

import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from ilu.methods.masks.choices import Rest
from ilu.models.blocks import blocks

VOCABULARY = r"(^|\.)(embed_tokens|lm_head|wte|embed_in|embed_out)\."
"""Names of the weights that have a row per token."""
PADDING = 64
"""Rows that an added padding token, rounded up, may have appended to them."""


class Converted(NamedTuple):
    """A mask by weight name, and notes about choices in the conversion."""

    mask: dict[str, Bool[Tensor, "..."]]
    notes: list[str]


def read_legacy(path: Path) -> Mapping[Any, Tensor]:
    """Read a dictionary of tensors. ``weights_only`` rejects all other pickled objects."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist: give the .pt file of a mask")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns before it rejects a file
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):  # says nothing about the content
        raise
    except Exception as error:  # a damaged pickle may fail in any way
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "it is cut short"
        raise ValueError(f"{path} is not a mask that torch can load safely: {reason}") from None
    if not isinstance(loaded, dict) or not loaded:
        kind = type(loaded).__name__
        raise ValueError(f"{path} contains a {kind}: it must be a dictionary of tensors")
    strange = [key for key, x in loaded.items() if not isinstance(x, Tensor)]
    if strange:
        raise ValueError(f"{path}: entry {strange[0]!r} is no tensor")
    return loaded


def convert(old: Mapping[Any, Tensor], model: nn.Module, rest: Rest = "still") -> Converted:
    """Give a legacy mask the names and shapes of ``model``.

    Masks of the score wanda number the linear layers of the blocks, in order: 0, 1, .... They omit
    all other weights, which the original code trained. ``rest`` says whether these weights are
    fixed (``still``) or trained (``free``).
    """
    notes: list[str] = []
    named = dict(model.named_parameters())
    by_name = numbered(old, model) if all(isinstance(key, int) for key in old) else dict(old)
    unknown = sorted(str(name) for name in by_name.keys() - named.keys())
    if unknown:
        raise ValueError(
            f"the mask names {len(unknown)} weights that the model lacks, first: {unknown[0]}"
        )
    mask = {name: fitted(name, x, named[name], notes) for name, x in by_name.items()}
    missing = [name for name in named if name not in mask]
    if missing:
        what = "are free, as in the original" if rest == "free" else "stay still"
        notes.append(f"{len(missing)} weights that the mask does not name {what}")
    for name in missing:
        mask[name] = torch.full(named[name].shape, rest == "free")
    return Converted({name: mask[name] for name in named}, notes)


def numbered(old: Mapping[Any, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The masks by the names of the linear layers in the blocks, in the original's order."""
    inside = {id(m) for block in blocks(model) for m in block.modules() if type(m) is nn.Linear}
    names = [f"{n}.weight" for n, m in model.named_modules() if id(m) in inside]
    if sorted(old) != list(range(len(names))):
        raise ValueError(
            f"the mask numbers {len(old)} layers and the model has {len(names)} linear layers in "
            "its blocks: it was made for another model"
        )
    return {name: old[i] for i, name in enumerate(names)}


def fitted(name: str, x: Tensor, weight: Tensor, notes: list[str]) -> Bool[Tensor, "..."]:
    """One mask as booleans in the shape of its weight.

    The original added a padding token to the vocabulary; such rows at the end are removed.
    """
    extra = x.shape[0] - weight.shape[0] if x.dim() == weight.dim() and x.dim() else 0
    if 0 < extra <= PADDING and x.shape[1:] == weight.shape[1:] and re.search(VOCABULARY, name):
        notes.append(f"{name}: {extra} rows at the end cut, the model's vocabulary is shorter")
        x = x[: weight.shape[0]]
    if x.shape != weight.shape:
        raise ValueError(f"{name} is {tuple(x.shape)}, the model's weight {tuple(weight.shape)}")
    if not only_01(x.flatten().split(1 << 24)):
        raise ValueError(f"{name} has values other than 0 and 1: this is no mask")
    return x.bool()


def only_01(parts: Iterable[Tensor]) -> bool:
    """Whether all values are 0 or 1."""
    return all(
        part.dtype == torch.bool or bool(((part == 0) | (part == 1)).all()) for part in parts
    )
