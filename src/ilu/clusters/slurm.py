"""Runs as jobs of Slurm, through submitit."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from ilu.clusters.resources import Resources
from ilu.extras import need
from ilu.locks import held
from ilu.train import Stopped
from ilu.worker import STOPPED, Conditions, Outcome, carry_out, finished


def carry_out_all(
    records: Mapping[Path, Mapping[str, Any]],
    *,
    resources: Resources,
    conditions: Conditions,
    stop: Callable[[], bool],
    logs: Path,
    cluster: Literal["slurm", "local"] = "slurm",
) -> Iterator[Outcome]:
    """Like ``ilu.pool.carry_out_all``: one array of jobs, whose logs lie in ``logs``.

    Stopping leaves the jobs in the queue, because they are Slurm's now, and cancelling the sweep
    ends them. The same command submits again what is neither finished nor under way; where an
    older job comes first, the newer one finds its run finished. ``cluster="local"`` runs them here,
    for tests.
    """
    need("submitit", "slurm", "--executor slurm")
    done = [path for path, record in records.items() if finished(path, record)]
    yield from (Outcome(path, None) for path in done)
    waiting = {p: record for p, record in records.items() if p not in done and not held(p)}
    if not waiting:
        return
    import submitit  # pyright: ignore[reportMissingImports]

    executor = submitit.AutoExecutor(folder=str(logs), cluster=cluster)
    executor.update_parameters(**parameters(resources, cluster))
    with executor.batch():
        jobs = {path: executor.submit(carry_out, dict(record), path, conditions)
                for path, record in waiting.items()}  # fmt: skip
    yield from collect(jobs, stop)


def parameters(resources: Resources, cluster: str) -> dict[str, Any]:
    """What submitit is told."""
    asked: dict[str, Any] = {
        "timeout_min": round(60 * resources.hours),
        "cpus_per_task": resources.cpus,
        "gpus_per_node": int(resources.gpus),
    }
    if resources.gpus != int(resources.gpus):
        raise ValueError(f"--gpus {resources.gpus}: Slurm gives whole GPUs; Ray can share one")
    if resources.memory:
        asked["mem_gb"] = resources.memory
    if cluster == "slurm":
        asked["name"] = "ilu"
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
            failure = jobs[path].exception()
            error = jobs[path].result() if failure is None else f"lost in Slurm: {first(failure)}"
            del jobs[path]
            if error == STOPPED:
                stopped = True
            else:
                yield Outcome(path, error)
        time.sleep(0.5)
    if stopped:
        raise Stopped


def first(failure: BaseException) -> str:
    """The first line of an error."""
    return str(failure).strip().splitlines()[0] if str(failure).strip() else type(failure).__name__
