"""Many runs, each in a process of its own, so that a failure or its memory stays there."""

import signal
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import torch

from ilu.attacking import check_failures
from ilu.extras import quiet_libraries
from ilu.recipe import Recipe
from ilu.run import Options, run
from ilu.rundir import RunDir
from ilu.train import Stopped


class Outcome(NamedTuple):
    """A run that has ended, and why it failed if it did."""

    path: Path
    error: str | None


class Running(NamedTuple):
    """A run under way."""

    path: Path
    process: BaseProcess
    result: connection.Connection


def run_all(
    jobs: Mapping[Path, Recipe],
    *,
    workers: int,
    device: str = "cpu",
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Outcome]:
    """Carry out every recipe in its folder, ``workers`` at a time; yield them as they end.

    Finished runs are skipped and interrupted ones continued. Once ``stop()`` is true no run is
    begun; those under way end, and ``Stopped`` is raised if some are left. One thread each:
    processes that share cores and use several threads wait for each other.
    """
    if workers < 1:
        raise ValueError(f"--workers {workers}: it must be at least 1")
    waiting, running = list(jobs.items()), list[Running]()
    while running or (waiting and not stop()):
        while waiting and len(running) < workers and not stop():
            running.append(start(*waiting.pop(0), device))
        connection.wait([one.process.sentinel for one in running], timeout=1)
        ended = [one for one in running if not one.process.is_alive()]
        running = [one for one in running if one not in ended]
        yield from map(outcome, ended)
    if waiting:
        raise Stopped


def start(path: Path, recipe: Recipe, device: str) -> Running:
    """Begin a run."""
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=carry_out, args=(recipe, path, device, theirs))
    process.start()
    theirs.close()
    return Running(path, process, ours)


def outcome(ended: Running) -> Outcome:
    """What a run that has ended had to say; one that was killed said nothing."""
    try:
        return Outcome(ended.path, ended.result.recv())
    except EOFError:
        return Outcome(ended.path, f"its process ended with code {ended.process.exitcode}")


def carry_out(recipe: Recipe, path: Path, device: str, result: connection.Connection) -> None:
    """One run in this process; an error is a result, so that the others go on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that began this one
    quiet_libraries()
    torch.set_num_threads(1)
    forget_failure(path)
    try:
        check_failures(run(recipe, path, Options(device=device, resume=True)))
    except Exception as error:  # whatever it was, it is reported and the other runs go on
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        if not RunDir(path).has("done"):  # where attacks failed, the run says so itself
            RunDir(path).write("failed", {"error": why})  # so that a report can list it
        result.send(why)
    else:
        result.send(None)


def forget_failure(path: Path) -> None:
    """Make way for another try, also where nothing but the failure was recorded."""
    RunDir(path).file("failed").unlink(missing_ok=True)
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()
