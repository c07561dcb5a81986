"""The weights that a mask allows to change; the optimiser sees no others."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from ilu.system.distributed import full_tensor, local
from ilu.training.optim.protocol import Named
from ilu.types import Grads, Mask


@dataclass(frozen=True)
class Moving:
    """Weights that have a gradient, and their entries that may change in this process.

    ``parts`` has the weight itself if all entries may change, otherwise a vector of those that may,
    which has values only between ``gather`` and ``scatter``. Of a sharded weight it has the local
    entries as an ordinary tensor, so that optimisers need not support shards.
    """

    weights: Named
    parts: Named
    masks: Mapping[str, Bool[Tensor, "..."]]

    @torch.no_grad()
    def gather(self) -> None:
        """Copy values and gradients of the weights to the parts."""
        for name, p in self.weights.items():
            part, grad = self.parts.get(name), p.grad
            if part is p:
                continue
            if part is not None:
                part.data = self.entries(name, p.detach())
                part.grad = None if grad is None else self.entries(name, grad)
            p.grad = None

    @torch.no_grad()
    def scatter(self) -> None:
        """Copy the values of the parts to the weights, then free the parts and every gradient."""
        for name, mask in self.masks.items():
            part = self.parts[name]
            local(self.weights[name].detach())[mask] = part.data
            part.data = part.data.new_empty(0)
        for p in self.parts.values():
            p.grad = None

    def pick(self, values: Grads) -> Grads:
        """The entries that may change, of one tensor per weight."""
        named = [(n, v) for n, v in zip(self.weights, values, strict=True) if n in self.parts]
        return tuple(self.entries(n, v) for n, v in named)

    def entries(self, name: str, values: Tensor) -> Tensor:
        """The local entries that may change, of a tensor with the layout of a weight."""
        here = local(values)
        return here[self.masks[name]] if name in self.masks else here

    @property
    def moved(self) -> dict[str, Tensor]:
        """The local shards of the weights that may change, sharing their memory."""
        return {n: local(p.detach()) for n, p in self.weights.items() if n in self.parts}


def moving(named: Named, mask: Mask | None, pattern: str = "") -> Moving:
    """The weights of ``named`` that match ``pattern``, and their entries in ``mask``."""
    trained = {n: p for n, p in named.items() if re.search(pattern, n)}
    counts = {n: p.numel() if mask is None else count(mask[n]) for n, p in trained.items()}
    moved = {n: p for n, p in trained.items() if counts[n]}
    masks = {n: local(mask[n]) for n, p in moved.items() if mask and counts[n] < p.numel()}
    parts = {n: part_of(p, masks.get(n)) for n, p in moved.items()}
    return Moving(named, parts, masks)


def part_of(p: nn.Parameter, mask: Bool[Tensor, "..."] | None) -> nn.Parameter:
    """The weight itself, or a vector for its local entries in ``mask``."""
    weight = p.detach()
    here = local(weight)
    if mask is not None:
        return nn.Parameter(here[mask])
    return p if here is weight else nn.Parameter(here)


def count(mask: Bool[Tensor, "..."]) -> int:
    """Number of entries that may change, over all processes."""
    return int(full_tensor(mask.sum()).item())


def movable(named: Named, mask: Mask | None) -> Named:
    """The weights of which an entry may change."""
    found = {n: p for n, p in named.items() if mask is None or count(mask[n])}
    if not found:
        raise ValueError(
            "the mask has none of the trained weights: make one with a larger fraction, or train "
            "others with `parameters`"
        )
    return found
