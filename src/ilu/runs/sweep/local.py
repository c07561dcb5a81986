"""Many runs on this machine, each in a process of its own: its failure and memory stay there."""

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
PRELOADED = ["ilu.runs.sweep.worker", "transformers.models.llama", "transformers.modeling_utils"]
"""What every run imports: on Linux a process that has it already is forked for each of them, which
saves each of them seconds. It does nothing else, so there are no threads and no device to inherit.
"""


class Running(NamedTuple):
    """A run under way."""

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
    """Carry out every recipe in its folder, ``workers`` at a time; yield them as they end.

    Finished runs are skipped without a process and interrupted ones continued. Once ``stop()`` is
    true those under way save and stop, and ``Stopped`` is raised if any run is left.
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
    """The same with recipes that are recorded already."""
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
                one.process.terminate()  # a request: it saves first
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
    """Begin a run."""
    context = get_context("forkserver" if sys.platform == "linux" else "spawn")
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload(PRELOADED)
        resource_tracker.ensure_running()  # when it begins it lets SIGTERM through again
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=tell, args=(record, path, conditions, theirs))
    with held_back(signal.SIGTERM):
        process.start()
    theirs.close()
    return Running(path, process, ours)


@contextmanager
def held_back(number: signal.Signals) -> Generator[None]:
    """Keep a signal until the end of the block, where the system can.

    Processes that are begun inside inherit it. So the one that the runs are forked from is not
    ended by a signal to all of them: it could start none and say of none how it came out.
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def tell(record: Record, path: Path, conditions: Conditions, result: connection.Connection) -> None:
    """Carry out a run in this process and send what became of it."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    result.send(carry_out(record, path, conditions))


def outcome(ended: Running) -> Outcome:
    """What a run that has ended had to say; one that was killed said nothing."""
    try:
        return Outcome(ended.path, ended.result.recv())
    except EOFError:
        code = ended.process.exitcode
        asked = code == -signal.SIGTERM  # before it could hear
        return Outcome(ended.path, STOPPED if asked else f"its process ended with code {code}")
