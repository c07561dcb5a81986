"""One run of a sweep in its own process: on this machine, in Ray or on a cluster."""

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
"""The reason of a run that was stopped, which is no failure."""


class Outcome(NamedTuple):
    """A run that has ended, and the reason if it is not finished."""

    path: Path
    error: str | None


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Settings of all runs of a sweep that do not change their numbers.

    ``shared``: a folder for shared results. ``cancel``: a file whose existence stops all runs, also
    on other machines.
    """

    device: str = "cpu"
    save_every: int | None = None
    shared: Path | None = None
    cancel: Path | None = None

    def cancelled(self) -> bool:
        """Whether all runs must stop."""
        return self.cancel is not None and self.cancel.exists()


def carry_out(
    record: Mapping[str, Any],
    path: Path,
    conditions: Conditions,
    *,
    stop: Callable[[], bool] = lambda: False,
) -> str | None:
    """Run or resume a recorded recipe; return the reason if it did not finish.

    Uses one thread, because processes with several threads on shared cores wait for each other. An
    error is returned and recorded for reports, so that the other runs continue. SIGTERM, the
    sweep's file and ``stop()`` save and stop the run; the parent process handles Ctrl-C.
    """
    quiet_libraries()
    torch.set_num_threads(1)
    forget_failure(path)
    with noted(signal.SIGTERM) as terminated, noted(signal.SIGINT):
        options = Options(
            samples=False,  # those of many runs would fill the disk
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
        except Busy as error:  # another process has the folder, so record no failure
            return str(error)
        except Exception as error:  # any error is reported, and the other runs continue
            why = reason(error)
            if not RunDir(path).has("done"):  # failed attacks are recorded by the run
                RunDir(path).write("failed", {"error": why})
            return why
    return None


@contextmanager
def noted(number: signal.Signals) -> Generator[Callable[[], bool]]:
    """Yield a function that tells whether the signal was received; its handler does no more."""
    seen: list[int] = []
    before = signal.signal(number, lambda got, frame: seen.append(got))
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(number, before)


def finished(path: Path, record: Mapping[str, Any]) -> bool:
    """Whether ``path`` has the finished run of exactly this recipe."""
    try:
        same = agrees(renewed(RunDir(path).read("recipe")), json.loads(json.dumps(record)))
    except (OSError, ValueError):
        return False
    return same and RunDir(path).has("done") and not RunDir(path).failures()


CHOSEN = re.compile(r"recipe\.objective\.\S+\.loss\.\S+: .+ -> None", re.DOTALL)
"""A difference in a setting of a loss that the run chose for its model."""


def agrees(carried_out: Mapping[str, Any], requested: Mapping[str, Any]) -> bool:
    """Whether a run has the requested recipe, apart from settings that it chose for the model."""
    return all(CHOSEN.fullmatch(each) for each in differences(carried_out, requested))


def recorded(recipe: Any) -> dict[str, Any]:
    """A recipe as JSON; ValueError if another process cannot restore it."""
    record: dict[str, Any] = json.loads(json.dumps(describe(recipe)))
    restore(record)
    return record


def forget_failure(path: Path) -> None:
    """Delete the record of a failure, and the folder if it has nothing else."""
    RunDir(path).file("failed").unlink(missing_ok=True)
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()
