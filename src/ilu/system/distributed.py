"""Processes that carry out one run together: each takes its own rows of every batch.

Two ways. *Data parallel*: every process holds all weights, and gradients are summed after the
terms. *Sharded* (``fully_shard``, FSDP2 of torch): each holds its part of weights, gradients and
optimiser state; torch averages a gradient as soon as it is complete.

Whatever is taken of a whole batch is taken of the batch of all processes: a rule that squares a
value (the invariance penalty) sees the mean of all before it squares, because the mean of squares
would penalise the variance between processes. There is no double backward anywhere in training:
under sharding torch returns it without a graph and without an error.
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
"""How long a process waits for another, which may be writing a large model."""


@dataclass(frozen=True)
class Ranks:
    """This process among ``size``, counted from 0; ``sharded``: weights lie in parts on all."""

    rank: int = 0
    size: int = 1
    sharded: bool = False

    @property
    def leads(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    @property
    def divisor(self) -> int:
        """What a process divides its part of the mean by: sums of gradients follow, or means."""
        return 1 if self.sharded else self.size

    @property
    def share(self) -> float:
        """How much of a gradient that all have already one process adds to what will be summed."""
        return 1.0 if self.sharded or self.leads else 0.0

    def mean(self, value: float) -> float:
        """Mean of a number over all processes."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        torch.distributed.all_reduce(total)
        return total.item() / self.size

    def norm(self, here: Tensor) -> Tensor:
        """Norm of everything, from the norm of what lies in this process."""
        if not self.sharded:
            return here
        total = here.double().square().cpu()
        torch.distributed.all_reduce(total)
        return total.sqrt().to(here)

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process."""
        return self.mean(float(flag)) > 0

    def first(self, ask: Callable[[], Answer]) -> Answer:
        """What the first process finds, in all: the others do not look for themselves."""
        if self.size == 1:
            return ask()
        found: list[Any] = [ask() if self.leads else None]
        torch.distributed.broadcast_object_list(found, src=0, device=torch.device("cpu"))
        return found[0]

    def lowest(self, value: int) -> int:
        """The least of a number over all processes."""
        if self.size == 1:
            return value
        least = torch.tensor(value)
        torch.distributed.all_reduce(least, torch.distributed.ReduceOp.MIN)
        return int(least.item())

    def sum_grads(self, params: Sequence[nn.Parameter]) -> None:
        """Make every ``.grad`` the sum over all processes; sharded gradients are complete.

        A weight that has no gradient in any of them is left without.
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
    """How many processes torchrun or accelerate has started; 1 without them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined(*, shard: bool) -> Generator[Ranks]:
    """Meet the other processes of this run, or be alone; ValueError for shards without others."""
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
    """The accelerator of this process, where ``cuda`` alone would be the first of the machine."""
    several = device == "cuda" and started_by_launcher() > 1
    return f"cuda:{os.environ['LOCAL_RANK']}" if several else device


def whole(x: Tensor) -> Tensor:
    """A result over all shards. ``.item()`` of an incomplete one is silently that of one shard."""
    from torch.distributed.tensor import DTensor

    return x.full_tensor() if isinstance(x, DTensor) else x


def local(x: Tensor) -> Tensor:
    """The part that lies in this process, sharing its memory."""
    from torch.distributed.tensor import DTensor

    return x.to_local() if isinstance(x, DTensor) else x


def laid_out(x: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, the same in every process, cut as ``like`` is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor):
        return x.to(like)
    place = x.to(like.device, like.dtype)
    return distribute_tensor(place, like.device_mesh, like.placements, src_data_rank=None)


def without_values(x: Tensor, device: torch.device) -> Tensor:
    """Storage on ``device`` for what lies in this process of ``x``, which may have none."""
    from torch.distributed.tensor import DTensor

    if not isinstance(x, DTensor):
        return torch.empty_like(x, device=device)
    here = torch.empty_like(x.to_local(), device=device)
    return DTensor.from_local(
        here, x.device_mesh, x.placements, run_check=False, shape=x.shape, stride=x.stride()
    )


def first_row(x: Tensor) -> int:
    """The first row of ``x`` that lies in this process: torch cuts into parts of ceil(n / size)."""
    from torch.distributed.tensor import DTensor

    if not isinstance(x, DTensor):
        return 0
    return min(len(x), x.device_mesh.get_local_rank() * -(-len(x) // x.device_mesh.size()))
