"""What a mask lets move, as the optimiser sees it: nothing else can change or has a state."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from ilu.system.distributed import local, whole
from ilu.training.optim.protocol import Named
from ilu.types import Grads, Mask


@dataclass(frozen=True)
class Moving:
    """Weights that have a gradient, and the parts of them that move in this process.

    ``parts`` holds the weight itself where all of it moves, otherwise a vector of the entries that
    do, which has values only from ``gather`` to ``scatter``. Of a sharded weight it is those that
    lie here: an ordinary tensor, so that no optimiser needs to know of shards.
    """

    whole: Named
    parts: Named
    masks: Mapping[str, Bool[Tensor, "..."]]

    @torch.no_grad()
    def gather(self) -> None:
        """Give the parts the values and the gradients of the weights."""
        for name, p in self.whole.items():
            part, grad = self.parts.get(name), p.grad
            if part is p:
                continue
            if part is not None:
                part.data = self.entries(name, p.detach())
                part.grad = None if grad is None else self.entries(name, grad)
            p.grad = None

    @torch.no_grad()
    def scatter(self) -> None:
        """Give the weights the values of the parts, and forget these and every gradient."""
        for name, mask in self.masks.items():
            part = self.parts[name]
            local(self.whole[name].detach())[mask] = part.data
            part.data = part.data.new_empty(0)
        for p in self.parts.values():
            p.grad = None

    def pick(self, values: Grads) -> Grads:
        """Of one tensor for each weight, the entries that move."""
        named = [(n, v) for n, v in zip(self.whole, values, strict=True) if n in self.parts]
        return tuple(self.entries(n, v) for n, v in named)

    def entries(self, name: str, values: Tensor) -> Tensor:
        """Of what is laid out like a weight, the entries that move here."""
        here = local(values)
        return here[self.masks[name]] if name in self.masks else here

    @property
    def moved(self) -> dict[str, Tensor]:
        """The weights of which something moves, as far as they lie here, sharing their memory."""
        return {n: local(p.detach()) for n, p in self.whole.items() if n in self.parts}


def moving(named: Named, mask: Mask | None, pattern: str = "") -> Moving:
    """What moves of ``named``: the weights that match ``pattern``, or what ``mask`` has of them."""
    trained = {n: p for n, p in named.items() if re.search(pattern, n)}
    counts = {n: p.numel() if mask is None else count(mask[n]) for n, p in trained.items()}
    moved = {n: p for n, p in trained.items() if counts[n]}
    masks = {n: local(mask[n]) for n, p in moved.items() if mask and counts[n] < p.numel()}
    parts = {n: part_of(p, masks.get(n)) for n, p in moved.items()}
    return Moving(named, parts, masks)


def part_of(p: nn.Parameter, mask: Bool[Tensor, "..."] | None) -> nn.Parameter:
    """The weight itself, or what moves of it in this process."""
    weight = p.detach()
    here = local(weight)
    if mask is not None:
        return nn.Parameter(here[mask])
    return p if here is weight else nn.Parameter(here)


def count(mask: Bool[Tensor, "..."]) -> int:
    """How many entries may move, over all processes."""
    return int(whole(mask.sum()).item())


def movable(named: Named, mask: Mask | None) -> Named:
    """The weights of which something may move."""
    found = {n: p for n, p in named.items() if mask is None or count(mask[n])}
    if not found:
        raise ValueError(
            "the mask lets nothing move among the trained weights: make it of a larger share, or "
            "train others with `parameters`"
        )
    return found
