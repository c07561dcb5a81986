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
from ilu.system.locks import locked
from ilu.system.optional import need

NOTICE = signal.SIGUSR2
"""The signal that Slurm sends before a job's time limit, or when the job is preempted."""


def carry_out_all(
    records: Mapping[Path, Mapping[str, Any]],
    *,
    resources: Resources,
    conditions: Conditions,
    stop: Callable[[], bool],
    logs: Path,
    cluster: Literal["slurm", "local"] = "slurm",
) -> Iterator[Outcome]:
    """Like ``ilu.runs.sweep.local.carry_out_all``, as one job array with its logs in ``logs``.

    A job near its time limit saves and is queued again, up to three times. Stopping this process
    leaves the jobs in the queue; cancelling the sweep ends them. The same command submits the runs
    that are neither finished nor running. ``cluster="local"`` runs the jobs here, for tests.
    """
    need("submitit", "slurm", "`executor` slurm")
    done = [path for path, record in records.items() if finished(path, record)]
    yield from (Outcome(path, None) for path in done)
    waiting = {p: record for p, record in records.items() if p not in done and not locked(p)}
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
        """Run; on the signal of Slurm save first, then let submitit queue the job again.

        submitit's own handler would end the run within a step, or within an import.
        """
        with noted(NOTICE) as noticed:
            error = carry_out(self.record, self.path, self.conditions, stop=noticed)
        return queued_again() if error == STOPPED and noticed() else error

    def checkpoint(self) -> Any:
        """Called by submitit: the job to queue again, which resumes from its folder."""
        import submitit  # pyright: ignore[reportMissingImports]

        return submitit.helpers.DelayedSubmission(self)


def queued_again() -> str:
    """Let submitit's handler end this process and queue its job; return the reason if it fails."""
    try:
        signal.raise_signal(NOTICE)
    except Exception as error:  # submitit raises no specific type
        return f"{error} The checkpoint is kept: repeat the command with more `hours`"
    return STOPPED


def slurm_parameters(resources: Resources, cluster: str) -> dict[str, Any]:
    """The parameters of submitit."""
    minutes = math.ceil(60 * resources.hours)  # Slurm reads 0 as no limit
    parameters: dict[str, Any] = {
        "timeout_min": minutes,
        "cpus_per_task": resources.cpus,
        "gpus_per_node": int(resources.gpus),
    }
    if resources.gpus != int(resources.gpus):
        raise ValueError(f"`gpus` {resources.gpus}: Slurm gives whole GPUs; Ray can share one")
    if resources.memory:
        parameters["mem_gb"] = resources.memory
    if cluster == "slurm":
        parameters["name"] = "ilu"
        # A checkpoint may take minutes to write, and Slurm rounds to minutes.
        parameters["slurm_signal_delay_s"] = min(600, 6 * minutes)
        if resources.partition:
            parameters["slurm_partition"] = resources.partition
    return parameters


def collect(jobs: dict[Path, Any], stop: Callable[[], bool]) -> Iterator[Outcome]:
    """Yield outcomes as jobs end."""
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
    """The error of a job without a result: its state in Slurm and its log."""
    return f"lost in Slurm, state {job.state}: see {job.paths.stderr}"
