"""The process that reads and writes files: the first of several, or the only one."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

Answer = TypeVar("Answer")


@runtime_checkable
class Leader(Protocol):
    """The processes that share a folder; ``distributed.Ranks`` implements it."""

    @property
    def leads(self) -> bool:
        """Whether this process writes."""
        ...

    def first(self, compute: Callable[[], Answer]) -> Answer:
        """Return in every process what ``compute`` returns in the first."""
        ...


def leads() -> bool:
    """Whether this process is the first, or only, one that torchrun or accelerate started."""
    return os.environ.get("RANK", "0") == "0"


@dataclass(frozen=True)
class OnlyProcess:
    """The leader where there is no other process."""

    leads: bool = True

    def first(self, compute: Callable[[], Answer]) -> Answer:
        return compute()


ONLY = OnlyProcess()
