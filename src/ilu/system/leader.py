"""The process that writes files and looks for them: the first of several, or the only one."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

Answer = TypeVar("Answer")


@runtime_checkable
class Leader(Protocol):
    """What a folder has to know of the processes that share it; ``distributed.Ranks`` is one."""

    @property
    def leads(self) -> bool:
        """Whether this process writes."""
        ...

    def first(self, ask: Callable[[], Answer]) -> Answer:
        """Return in every process what ``ask`` returns in the first."""
        ...


def leads() -> bool:
    """Whether this process is the first, or only, one that torchrun or accelerate started."""
    return os.environ.get("RANK", "0") == "0"


@dataclass(frozen=True)
class OnlyProcess:
    """The leader where there is no other process."""

    leads: bool = True

    def first(self, ask: Callable[[], Answer]) -> Answer:
        return ask()


ONLY = OnlyProcess()
