"""Weights in parts on several processes: FSDP2 of torch, and what goes beyond it."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ilu.models.blocks import blocks
from ilu.system.distributed import Ranks
from ilu.types import Batch, Forward, Outputs, Tokens, Weights


def shard(model: nn.Module, ranks: Ranks, device: torch.device | None = None) -> None:
    """Keep of every weight the part of this process, block by block (FSDP2), in place.

    ``device`` is where weights will lie that have no storage yet.
    Also the outermost weights are given back after a forward pass, which torch would not do by
    itself: a reference that is put in place for one pass would find the old ones still gathered.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    kind = device or next(model.parameters()).device
    mesh = init_device_mesh(kind.type, (ranks.size,))
    for part in (*blocks(model), model):
        fully_shard(part, mesh=mesh, reshard_after_forward=True)
    assert isinstance(model, FSDPModule)


def whole_weights(model: nn.Module) -> dict[str, Tensor] | None:
    """All weights of a sharded model, in the first process's main memory; None if not sharded.

    Every process must ask; those that are not the first are given nothing.
    """
    from torch.distributed.fsdp import FSDPModule

    if not isinstance(model, FSDPModule):
        return None
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    found: Any = get_model_state_dict(model, options=options)
    return found


def load_whole(model: nn.Module, weights: Weights) -> None:
    """Give a model, sharded or not, weights that every process has whole."""
    from torch.distributed.fsdp import FSDPModule

    if not isinstance(model, FSDPModule):
        model.load_state_dict(dict(weights))
        return
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    set_model_state_dict(model, dict(weights), options=StateDictOptions(full_state_dict=True))


@dataclass(frozen=True)
class PutBack:
    """The original model where weights are sharded: its parts are put in place for each pass.

    A function of weights, which ``Frozen`` calls, does not exist there: torch gathers the weights
    that the model holds. The trained ones are kept in memory during the pass.
    """

    model: nn.Module
    weights: Weights | None
    inner: Forward

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Outputs:
        with self.original():
            return self.inner(batch)

    @torch.no_grad()
    def tokens(self, batch: Batch, *, entropy: bool = False) -> Tokens:
        """Return what the original model says of each target."""
        with self.original():
            return self.inner.tokens(batch, entropy=entropy)

    @torch.no_grad()
    def hidden(self, batch: Batch, layer: int) -> Float[Tensor, "B T D"]:
        """Return the output of block ``layer`` of the original model."""
        with self.original():
            return self.inner.hidden(batch, layer)

    def shifted(self, layer: int, by: Float[Tensor, "B T D"], batch: Batch) -> "PutBack":
        """Return the original model with ``by`` added to block ``layer`` on ``batch``."""
        return PutBack(self.model, self.weights, self.inner.shifted(layer, by, batch))

    @contextmanager
    def original(self) -> Generator[None]:
        """Have the original weights in the model."""
        if self.weights is None:
            raise ValueError("a loss reads the reference, but `needs` has no reference=True")
        give_back(self.model)
        trained: Any = dict(self.model.named_parameters())
        kept = {name: trained[name].detach().clone() for name in self.weights}
        try:
            for name, before in self.weights.items():
                trained[name].data.copy_(before)
            yield
        finally:
            give_back(self.model)
            for name, now in kept.items():
                trained[name].data.copy_(now)


def give_back(model: nn.Module) -> None:
    """Let go of the outermost weights, which a pass that ended inside the model has left gathered.

    They would be neither parts that can be changed, nor follow when the parts are.
    """
    from torch.distributed.fsdp import FSDPModule

    assert isinstance(model, FSDPModule)
    model.reshard()
