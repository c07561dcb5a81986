"""Distributed runs: each process handles its own rows of every batch.

There are two modes. *Data parallel*: every process has all weights, and gradients are summed after
the terms. *Sharded* (``fully_shard``, FSDP2 of torch): each process has a shard of weights,
gradients and optimiser state; torch averages a gradient as soon as it is complete.

Every quantity of a batch is that of the global batch: a rule that squares a value (the invariance
penalty) squares the mean over all processes, because the mean of squares would penalise the
variance between processes. Training never uses double backward: under sharding torch silently
returns it without a graph.
"""

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Answer = TypeVar("Answer")
PATIENCE = timedelta(hours=12)
"""Timeout for other processes, which may be writing a large model."""


@dataclass(frozen=True)
class Ranks:
    """The rank of this process, from 0, of ``size``, and whether weights are sharded."""

    rank: int = 0
    size: int = 1
    sharded: bool = False

    @property
    def leads(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    @property
    def divisor(self) -> int:
        """Divisor of the local loss: ``size`` if gradients are summed, 1 if torch averages them."""
        return 1 if self.sharded else self.size

    @property
    def share(self) -> float:
        """Factor for a gradient that all processes have, so that the reduction counts it once."""
        return 1.0 if self.sharded or self.leads else 0.0

    def mean(self, value: float) -> float:
        """Mean of a number over all processes."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        torch.distributed.all_reduce(total)
        return total.item() / self.size

    def norm(self, here: Tensor) -> Tensor:
        """Norm over all processes, from the norm over this process's shards."""
        if not self.sharded:
            return here
        total = here.double().square().cpu()
        torch.distributed.all_reduce(total)
        return total.sqrt().to(here)

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is true in any process."""
        return self.mean(float(flag)) > 0

    def first(self, compute: Callable[[], Answer]) -> Answer:
        """The result of ``compute`` in the first process, broadcast to all."""
        if self.size == 1:
            return compute()
        result: list[Any] = [compute() if self.leads else None]
        torch.distributed.broadcast_object_list(result, src=0, device=torch.device("cpu"))
        return result[0]

    def lowest(self, value: int) -> int:
        """Minimum of a number over all processes."""
        if self.size == 1:
            return value
        least = torch.tensor(value)
        torch.distributed.all_reduce(least, torch.distributed.ReduceOp.MIN)
        return int(least.item())

    def sum_grads(self, params: Sequence[nn.Parameter]) -> None:
        """Sum every ``.grad`` over all processes; sharded gradients are already reduced.

        A weight without a gradient in all processes keeps None.
        """
        if self.size == 1 or self.sharded:
            return
        some = torch.tensor([float(p.grad is not None) for p in params], device=params[0].device)
        torch.distributed.all_reduce(some)
        for p in (p for p, holders in zip(params, some.tolist(), strict=True) if holders):
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            torch.distributed.all_reduce(p.grad)


ALONE = Ranks()


def started_by_launcher() -> int:
    """The number of processes that torchrun or accelerate has started, or 1."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined(*, shard: bool) -> Generator[Ranks]:
    """Join the process group of this run, if any; ValueError for sharding in one process."""
    size = started_by_launcher()
    if size == 1:
        if shard:
            raise ValueError(
                "--shard needs several processes: torchrun --nproc-per-node N --no-python "
                "ilu unlearn ... --shard, or leave it out"
            )
        yield ALONE
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Ranks(torch.distributed.get_rank(), size, sharded=shard)
    finally:
        torch.distributed.destroy_process_group()


def own_device(device: str) -> str:
    """The GPU of this process, for ``cuda``, which otherwise means the first of the machine."""
    several = device == "cuda" and started_by_launcher() > 1
    return f"cuda:{os.environ['LOCAL_RANK']}" if several else device


def full_tensor(x: Tensor) -> Tensor:
    """The full tensor of all shards; ``.item()`` of a partial result is that of one shard."""
    from torch.distributed.tensor import DTensor

    return x.full_tensor() if isinstance(x, DTensor) else x


def local(x: Tensor) -> Tensor:
    """The shard of this process, which shares its memory."""
    from torch.distributed.tensor import DTensor

    return x.to_local() if isinstance(x, DTensor) else x


def laid_out(x: Tensor, like: Tensor) -> Tensor:
    """Shard a full tensor, equal in every process, in the layout of ``like``."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor):
        return x.to(like)
    place = x.to(like.device, like.dtype)
    return distribute_tensor(place, like.device_mesh, like.placements, src_data_rank=None)


def without_values(x: Tensor, device: torch.device) -> Tensor:
    """Uninitialised storage on ``device`` for this process's shard of ``x``, also a meta tensor."""
    from torch.distributed.tensor import DTensor

    if not isinstance(x, DTensor):
        return torch.empty_like(x, device=device)
    here = torch.empty_like(x.to_local(), device=device)
    return DTensor.from_local(
        here, x.device_mesh, x.placements, run_check=False, shape=x.shape, stride=x.stride()
    )


def first_row(x: Tensor) -> int:
    """The first row of ``x`` in this process: torch makes shards of ceil(n / size) rows."""
    from torch.distributed.tensor import DTensor

    if not isinstance(x, DTensor):
        return 0
    return min(len(x), x.device_mesh.get_local_rank() * -(-len(x) // x.device_mesh.size()))
