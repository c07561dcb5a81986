"""Runs as jobs of Slurm, through submitit."""

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ilu.runs.sweep.resources import Resources
from ilu.runs.sweep.worker import STOPPED, Conditions, Outcome, carry_out, finished, noted
from ilu.system.errors import Stopped
from ilu.system.locks import held
from ilu.system.optional import need

NOTICE = signal.SIGUSR2
"""What submitit has Slurm send some time before a job's limit, or when it is to make room."""


def carry_out_all(
    records: Mapping[Path, Mapping[str, Any]],
    *,
    resources: Resources,
    conditions: Conditions,
    stop: Callable[[], bool],
    logs: Path,
    cluster: Literal["slurm", "local"] = "slurm",
) -> Iterator[Outcome]:
    """Like ``ilu.runs.sweep.local.carry_out_all``: one array of jobs, whose logs lie in ``logs``.

    A job whose time is nearly over saves and goes into the queue again, three times. Stopping
    leaves the jobs in the queue, because they are Slurm's now, and cancelling the sweep ends them.
    The same command submits again what is neither finished nor under way; where an older job comes
    first, the newer one finds its run finished. ``cluster="local"`` runs them here, for tests.
    """
    need("submitit", "slurm", "`executor` slurm")
    done = [path for path, record in records.items() if finished(path, record)]
    yield from (Outcome(path, None) for path in done)
    waiting = {p: record for p, record in records.items() if p not in done and not held(p)}
    if not waiting:
        return
    import submitit  # pyright: ignore[reportMissingImports]

    executor = submitit.AutoExecutor(folder=str(logs), cluster=cluster)
    executor.update_parameters(**slurm_parameters(resources, cluster))
    with executor.batch():
        jobs = {path: executor.submit(Job(dict(record), path, conditions))
                for path, record in waiting.items()}  # fmt: skip
    yield from collect(jobs, stop)


@dataclass(frozen=True)
class Job:
    """One run as a job."""

    record: Mapping[str, Any]
    path: Path
    conditions: Conditions

    def __call__(self) -> str | None:
        """Carry it out; on notice, save first and then let submitit put it into the queue again.

        submitit's own handler ends the run where it stands: in a step, or in an import, whose error
        would then be the run's.
        """
        with noted(NOTICE) as noticed:
            error = carry_out(self.record, self.path, self.conditions, stop=noticed)
        return queued_again() if error == STOPPED and noticed() else error

    def checkpoint(self) -> Any:
        """What goes into the queue again, asked for by submitit: the same, whose folder knows."""
        import submitit  # pyright: ignore[reportMissingImports]

        return submitit.helpers.DelayedSubmission(self)


def queued_again() -> str:
    """Let submitit's handler end this process and queue its job; return why if it does not."""
    try:
        signal.raise_signal(NOTICE)
    except Exception as error:  # submitit's; it has nothing but words
        return f"{error} What the run has done is kept: repeat the command with more `hours`"
    return STOPPED


def slurm_parameters(resources: Resources, cluster: str) -> dict[str, Any]:
    """What submitit is told."""
    minutes = math.ceil(60 * resources.hours)  # Slurm reads 0 as no limit
    asked: dict[str, Any] = {
        "timeout_min": minutes,
        "cpus_per_task": resources.cpus,
        "gpus_per_node": int(resources.gpus),
    }
    if resources.gpus != int(resources.gpus):
        raise ValueError(f"`gpus` {resources.gpus}: Slurm gives whole GPUs; Ray can share one")
    if resources.memory:
        asked["mem_gb"] = resources.memory
    if cluster == "slurm":
        asked["name"] = "ilu"
        # A checkpoint may take minutes to write. Slurm counts in minutes and may be one early.
        asked["slurm_signal_delay_s"] = min(600, 6 * minutes)
        if resources.partition:
            asked["slurm_partition"] = resources.partition
    return asked


def collect(jobs: dict[Path, Any], stop: Callable[[], bool]) -> Iterator[Outcome]:
    """Yield jobs as they end."""
    stopped = False
    while jobs:
        if stop():
            raise Stopped
        for path in [path for path, job in jobs.items() if job.done()]:
            job = jobs.pop(path)
            error = job.result() if job.exception() is None else lost(job)
            if error == STOPPED:
                stopped = True
            else:
                yield Outcome(path, error)
        time.sleep(0.5)
    if stopped:
        raise Stopped


def lost(job: Any) -> str:
    """Of a job that gave no result: how Slurm says that it ended, and where to read more."""
    return f"lost in Slurm, state {job.state}: see {job.paths.stderr}"
