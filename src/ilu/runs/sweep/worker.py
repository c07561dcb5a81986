"""One run of many, in a process of its own: on this machine, in Ray or on a cluster."""

import json
import re
import signal
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ilu.runs.attack_stage import check_failures
from ilu.runs.run import Options, run
from ilu.runs.run_dir import RunDir
from ilu.system.errors import Stopped, reason
from ilu.system.locks import Busy
from ilu.system.optional import quiet_libraries
from ilu.system.record import describe, differences, renewed, restore

STOPPED = "stopped; what it has done is kept"
"""What a run says that was asked to stop: it did not fail."""


class Outcome(NamedTuple):
    """A run that has ended, and why it did not come to its end."""

    path: Path
    error: str | None


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """How runs are carried out, wherever that is; nothing here changes a number.

    ``shared`` is a folder for what they have in common. ``cancel`` is a file that stops them all
    when it appears, also on other machines.
    """

    device: str = "cpu"
    save_every: int | None = None
    shared: Path | None = None
    cancel: Path | None = None

    def cancelled(self) -> bool:
        """Whether all is to stop."""
        return self.cancel is not None and self.cancel.exists()


def carry_out(
    record: Mapping[str, Any],
    path: Path,
    conditions: Conditions,
    *,
    stop: Callable[[], bool] = lambda: False,
) -> str | None:
    """Carry out or continue the run of a recorded recipe; return why it did not end, if so.

    One thread: processes that share cores and use several threads wait for each other. An error is
    a result, so that the other runs go on; it is kept for reports. SIGTERM, the sweep's file and
    ``stop()`` ask it to save and stop; Ctrl-C is for who began this process.
    """
    quiet_libraries()
    torch.set_num_threads(1)
    forget_failure(path)
    with noted(signal.SIGTERM) as terminated, noted(signal.SIGINT):
        options = Options(
            samples=False,  # of many runs they would fill the disk
            device=conditions.device,
            save_every=conditions.save_every,
            resume=True,
            shared=conditions.shared,
            stop=lambda: terminated() or stop() or conditions.cancelled(),
        )
        try:
            check_failures(run(restore(record), path, options))
        except (Stopped, KeyboardInterrupt):
            return STOPPED
        except Busy as error:  # the folder is another's, also for notes of failure
            return str(error)
        except Exception as error:  # whatever it was, it is reported and the other runs go on
            why = reason(error)
            if not RunDir(path).has("done"):  # where attacks failed, the run says so itself
                RunDir(path).write("failed", {"error": why})
            return why
    return None


@contextmanager
def noted(number: signal.Signals) -> Generator[Callable[[], bool]]:
    """Give a function that says whether a signal has come, which does nothing else meanwhile."""
    seen: list[int] = []
    before = signal.signal(number, lambda got, frame: seen.append(got))
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(number, before)


def finished(path: Path, record: Mapping[str, Any]) -> bool:
    """Whether the run of exactly this recipe lies there, carried to its end."""
    try:
        same = agrees(renewed(RunDir(path).read("recipe")), json.loads(json.dumps(record)))
    except (OSError, ValueError):
        return False
    return same and RunDir(path).has("done") and not RunDir(path).failures()


CHOSEN = re.compile(r"recipe\.objective\.\S+\.loss\.\S+: .+ -> None", re.DOTALL)
"""A difference in a setting of a loss that the run chose for its model."""


def agrees(carried_out: Mapping[str, Any], requested: Mapping[str, Any]) -> bool:
    """Whether a run is the requested one, with the open settings of its losses chosen."""
    return all(CHOSEN.fullmatch(each) for each in differences(carried_out, requested))


def recorded(recipe: Any) -> dict[str, Any]:
    """A recipe as JSON, if another process can make it again from that."""
    record: dict[str, Any] = json.loads(json.dumps(describe(recipe)))
    restore(record)
    return record


def forget_failure(path: Path) -> None:
    """Make way for another try, also where nothing but the failure was recorded."""
    RunDir(path).file("failed").unlink(missing_ok=True)
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()
