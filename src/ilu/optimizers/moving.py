"""What a mask lets move, as the optimiser sees it: nothing else can change or has a state."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from ilu.optimizers.optimizer import Named
from ilu.types import Grads, Mask


@dataclass(frozen=True)
class Moving:
    """Trained weights, and the parts of them that move.

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
        """Of one tensor for each trained weight, the entries that move."""
        named = zip(self.whole, values, strict=True)
        return tuple(v[self.masks[n]] if n in self.masks else v for n, v in named)


def moving(named: Named, mask: Mask | None) -> Moving:
    """Weights of which nothing moves are not in ``named`` any more: see ``movable``."""
    masks = {n: mask[n] for n in named if not mask[n].all()} if mask is not None else {}
    parts = {n: nn.Parameter(p.detach()[masks[n]]) if n in masks else p for n, p in named.items()}
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
