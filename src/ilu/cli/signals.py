"""SIGINT and SIGTERM: the first asks the run to save and stop, the second ends it."""

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

from ilu.system.errors import Stopped


class Interrupt(Exception):
    """A run was stopped by a signal after saving."""

    def __init__(self, number: int, again: str) -> None:
        super().__init__(f"stopped; {again} continues")
        self.signal = number


@contextmanager
def interruptible(
    again: str = "the same command with --resume",
) -> Generator[Callable[[], bool]]:
    """Give a function that says whether a signal came; ``again`` says how to go on."""
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    before = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(seen)
    except Stopped:
        # Another command may have stopped the sweep, or its scheduler a run of it.
        raise Interrupt(seen[0] if seen else signal.SIGTERM, again) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
