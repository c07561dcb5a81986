"""Many runs, each in a process of its own, so that a failure or its memory stays there."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch

from ilu.extras import quiet_libraries
from ilu.recipe import Recipe
from ilu.run import Options, run
from ilu.train import Stopped


class Outcome(NamedTuple):
    """A run that has ended, and why it failed if it did."""

    path: Path
    error: str | None


def run_all(
    jobs: Mapping[Path, Recipe],
    *,
    workers: int,
    device: str = "cpu",
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Outcome]:
    """Carry out every recipe in its folder, ``workers`` at a time; yield them as they end.

    Once ``stop()`` is true no run is begun; those under way end, then ``Stopped`` is raised.

    Finished runs are skipped and interrupted ones continued. One thread each: processes that
    share cores and use several threads wait for each other.
    """
    if workers < 1:
        raise ValueError(f"--workers {workers}: it must be at least 1")
    processes = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), max_tasks_per_child=1)
    with processes as pool:
        running = [pool.submit(carry_out, recipe, path, device) for path, recipe in jobs.items()]
        while running:
            ended, _ = wait(running, timeout=1, return_when=FIRST_COMPLETED)
            running = [one for one in running if one not in ended]
            yield from (one.result() for one in ended)
            if stop():
                pool.shutdown(cancel_futures=True)
                raise Stopped


def carry_out(recipe: Recipe, path: Path, device: str) -> Outcome:
    """One run in this process; an error is a result, so that the others go on."""
    quiet_libraries()
    torch.set_num_threads(1)
    try:
        run(recipe, path, Options(device=device, resume=True))
    except Exception as error:  # whatever it was, it is reported and the other runs go on
        return Outcome(path, f"{type(error).__name__}: {error}".splitlines()[0])
    return Outcome(path, None)
