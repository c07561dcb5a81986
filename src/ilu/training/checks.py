"""Checks of settings that save memory: what they cannot be combined with."""

from typing import get_args

from torch import nn

from ilu.system.distributed import Ranks
from ilu.system.errors import unknown
from ilu.training.objective import Objective, joins
from ilu.training.optim.bfloat16 import fits_bfloat16
from ilu.training.optim.by_name import Kind
from ilu.types import Mask


def check_known(optimizer: str) -> None:
    """ValueError for an optimiser of an older version, which a record may name."""
    if optimizer not in get_args(Kind):
        raise unknown("optimizer", optimizer, get_args(Kind))


def check_sharded(optimizer: Kind) -> None:
    """ValueError for an optimiser that does not work on sharded weights."""
    if optimizer == "mezo":
        raise ValueError("mezo moves whole weights, not shards: leave out `shard`, or use adamw")
    if optimizer in ("adamw8bit", "adamw-bf16"):
        raise ValueError(
            f"{optimizer} cannot be combined with `shard`: its 8-bit blocks would cross "
            "the borders of shards. Use adamw, sgd, signsgd or sophia, or leave out `shard`"
        )


def check_bfloat16(model: nn.Module, objective: Objective, mask: Mask | None) -> None:
    """ValueError for what rounding to bfloat16 would undo."""
    ruled = [name for name, term in objective.items() if not joins(term)]
    if ruled:
        raise ValueError(
            f"adamw-bf16 cannot train term {ruled[0]!r}: its gradient is taken at perturbed "
            "weights and bfloat16 would round the perturbation away. Use adamw or adamw8bit"
        )
    if mask is not None and not fits_bfloat16(model):
        raise ValueError(
            "adamw-bf16 cannot keep masked weights: the model has float32 weights that bfloat16 "
            "would round. Use adamw or adamw8bit"
        )


def check_offloaded(objective: Objective, ranks: Ranks) -> None:
    """ValueError for ``offload_reference`` without original weights in each process."""
    if ranks.sharded:
        raise ValueError(
            "`offload_reference` does not support the sharded weights of `shard`: leave out one "
            "of the two"
        )
    if not any(term.loss.needs.reference for term in objective.values()):
        raise ValueError(
            "`offload_reference` has nothing to keep: no term of this recipe compares with the "
            "original weights. Leave it out"
        )
