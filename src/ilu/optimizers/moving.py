"""What a mask lets move, as the optimiser sees it: nothing else can change or has a state."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from ilu.optimizers.optimizer import Named
from ilu.types import Grads, Mask


@dataclass(frozen=True)
class Moving:
    """Weights that have a gradient, and the parts of them that move.

    ``parts`` holds the weight itself where all of it moves, otherwise a vector of the entries that
    do, which has values only from ``gather`` to ``scatter``.
    """

    whole: Named
    parts: Named
    masks: Mapping[str, Bool[Tensor, "..."]]

    @torch.no_grad()
    def gather(self) -> None:
        """Give the parts the values and the gradients of the weights."""
        for name, mask in self.masks.items():
            whole, part = self.whole[name], self.parts[name]
            part.data = whole.detach()[mask]
            part.grad = None if whole.grad is None else whole.grad[mask]
            whole.grad = None
        for name in self.whole.keys() - self.parts.keys():
            self.whole[name].grad = None

    @torch.no_grad()
    def scatter(self) -> None:
        """Give the weights the values of the parts, and forget these and every gradient."""
        for name, mask in self.masks.items():
            part = self.parts[name]
            self.whole[name].data[mask] = part.data
            part.data = part.data.new_empty(0)
        for p in self.parts.values():
            p.grad = None

    def pick(self, values: Grads) -> Grads:
        """Of one tensor for each weight, the entries that move."""
        named = [(n, v) for n, v in zip(self.whole, values, strict=True) if n in self.parts]
        return tuple(v[self.masks[n]] if n in self.masks else v for n, v in named)

    @property
    def moved(self) -> Named:
        """The weights of which something moves."""
        return {n: p for n, p in self.whole.items() if n in self.parts}


def moving(named: Named, mask: Mask | None, pattern: str = "") -> Moving:
    """What moves of ``named``: the weights that match ``pattern``, or what ``mask`` has of them."""
    trained = {n: p for n, p in named.items() if re.search(pattern, n)}
    moved = {n: p for n, p in trained.items() if mask is None or mask[n].any()}
    masks = {n: mask[n] for n in moved if not mask[n].all()} if mask is not None else {}
    parts = {n: nn.Parameter(p.detach()[masks[n]]) if n in masks else p for n, p in moved.items()}
    return Moving(named, parts, masks)


def movable(named: Named, mask: Mask | None) -> Named:
    """The weights of which something may move."""
    found = {n: p for n, p in named.items() if mask is None or mask[n].any()}
    if not found:
        raise ValueError(
            "the mask lets nothing move among the trained weights: make it of a larger share, or "
            "train others with --parameters"
        )
    return found
