"""Masks on disk: safetensors, one boolean tensor per masked weight."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ilu.types import Mask


def load_mask(path: Path, model: nn.Module) -> Mask:
    """Read a mask made for ``model``; weights that it does not name may not move."""
    if not path.is_file():
        raise ValueError(f"mask {path} does not exist: give a safetensors file of booleans")
    try:
        saved = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"mask {path} is not a safetensors file ({error})") from None
    named = dict(model.named_parameters())
    strangers = sorted(saved.keys() - named.keys())
    if strangers:
        raise ValueError(f"mask {path} names weights that the model lacks, first: {strangers[0]}")
    for name, mask in saved.items():
        if mask.shape != named[name].shape or mask.dtype != torch.bool:
            shapes = f"{mask.dtype} {tuple(mask.shape)}, wanted bool {tuple(named[name].shape)}"
            raise ValueError(f"mask {path}: {name} is {shapes}")
    return {
        name: saved.get(name, torch.zeros(p.shape, dtype=torch.bool)).to(p.device)
        for name, p in named.items()
    }
