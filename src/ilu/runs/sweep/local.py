"""Runs on this machine, each in its own process, so that failures and memory are separate."""

import signal
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import connection, get_context, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from ilu.runs.recipe import Recipe
from ilu.runs.sweep.worker import STOPPED, Conditions, Outcome, carry_out, finished, recorded
from ilu.system.errors import Stopped

Record = Mapping[str, Any]
PRELOADED = [
    "ilu.runs.sweep.preload",
    "ilu.runs.sweep.worker",
    "transformers.models.llama",
    "transformers.modeling_utils",
]
"""What every run imports. On Linux a server process imports it once and is forked for each run,
which saves seconds per run. The server does nothing else, so it has no threads and no device.
"""


class Running(NamedTuple):
    """A run that has started."""

    path: Path
    process: BaseProcess
    result: connection.Connection


def run_all(
    jobs: Mapping[Path, Recipe],
    *,
    workers: int,
    conditions: Conditions = Conditions(),
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Outcome]:
    """Run every recipe in its folder, ``workers`` at a time; yield the outcomes as runs end.

    Finished runs are skipped and interrupted ones continued. Once ``stop()`` is true the started
    runs save and stop, and ``Stopped`` is raised if any run is left.
    """
    records = {path: recorded(recipe) for path, recipe in jobs.items()}
    yield from carry_out_all(records, workers=workers, conditions=conditions, stop=stop)


def carry_out_all(
    records: Mapping[Path, Record],
    *,
    workers: int,
    conditions: Conditions,
    stop: Callable[[], bool],
) -> Iterator[Outcome]:
    """The same for recorded recipes."""
    if workers < 1:
        raise ValueError(f"`workers` {workers}: it must be at least 1")
    done = [path for path, record in records.items() if finished(path, record)]
    yield from (Outcome(path, None) for path in done)
    waiting = [(path, record) for path, record in records.items() if path not in done]
    running, stopped, stopping = list[Running](), 0, False
    while running or (waiting and not stopping):
        if not stopping and stop():
            stopping = True
            for one in running:
                one.process.terminate()  # SIGTERM: the run saves, then stops
        while waiting and len(running) < workers and not stopping:
            running.append(start(*waiting.pop(0), conditions))
        connection.wait([one.process.sentinel for one in running], timeout=1)
        ended = [outcome(one) for one in running if not one.process.is_alive()]
        running = [one for one in running if one.path not in {each.path for each in ended}]
        stopped += sum(each.error == STOPPED for each in ended)
        yield from (each for each in ended if each.error != STOPPED)
    if waiting or stopped:
        raise Stopped


def start(path: Path, record: Record, conditions: Conditions) -> Running:
    """Start a run."""
    context = get_context("forkserver" if sys.platform == "linux" else "spawn")
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload(PRELOADED)
        resource_tracker.ensure_running()  # its start unblocks SIGTERM
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=send_outcome, args=(record, path, conditions, theirs))
    with blocked(signal.SIGTERM):
        process.start()
    theirs.close()
    return Running(path, process, ours)


@contextmanager
def blocked(number: signal.Signals) -> Generator[None]:
    """Block a signal until the end of the context, except on Windows.

    Processes started inside inherit the block. A signal to the process group therefore does not
    end the server that forks the runs and reports how they ended.
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def send_outcome(
    record: Record, path: Path, conditions: Conditions, result: connection.Connection
) -> None:
    """Run a recipe in this process and send the result of ``carry_out``."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    result.send(carry_out(record, path, conditions))


def outcome(ended: Running) -> Outcome:
    """The outcome that an ended run has sent, or its exit code if it was killed."""
    try:
        return Outcome(ended.path, ended.result.recv())
    except EOFError:
        code = ended.process.exitcode
        stopped = code == -signal.SIGTERM  # before the run handled signals
        return Outcome(ended.path, STOPPED if stopped else f"its process ended with code {code}")
