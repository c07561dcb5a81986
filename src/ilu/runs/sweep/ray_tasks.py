"""Runs as tasks of Ray, on this machine or on a cluster whose nodes share the folder."""

import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ilu.runs.sweep.resources import Resources
from ilu.runs.sweep.worker import STOPPED, Conditions, Outcome, carry_out, finished
from ilu.system.errors import Stopped, first_line
from ilu.system.optional import need

RETRIES = 3
"""How often a run restarts from its last checkpoint after its worker or node was lost."""


def carry_out_all(
    records: Mapping[Path, Mapping[str, Any]],
    *,
    resources: Resources,
    conditions: Conditions,
    stop: Callable[[], bool],
    address: str | None = None,
) -> Iterator[Outcome]:
    """Like ``local.carry_out_all``, with as many runs at a time as the resources allow."""
    need("ray", "ray", "`executor` ray")
    done = [path for path, record in records.items() if finished(path, record)]
    yield from (Outcome(path, None) for path in done)
    waiting = {path: record for path, record in records.items() if path not in done}
    if stop() and waiting:
        raise Stopped
    if waiting:
        check_address(address)
        yield from carry_out_in_ray(waiting, resources, conditions, stop, address)


def check_address(address: str | None) -> None:
    """Raise ValueError if nothing listens at HOST:PORT, where Ray would retry for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return  # auto, or none
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ValueError(
            f"`address` {address}: no server answers ({error.strerror or error}): start Ray "
            "with ray start --head, or give the address that it prints"
        ) from error


def carry_out_in_ray(
    records: Mapping[Path, Mapping[str, Any]],
    resources: Resources,
    conditions: Conditions,
    stop: Callable[[], bool],
    address: str | None,
) -> Iterator[Outcome]:
    """Connect, submit all tasks, and yield their outcomes as they end."""
    import ray  # pyright: ignore[reportMissingImports]

    ray.init(address=address, log_to_driver=False, include_dashboard=False)
    try:
        task: Any = ray.remote(
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            memory=int(resources.memory * 2**30),
            max_retries=RETRIES,
            max_calls=1,  # a process for each run, as in ``local``
        )(in_ray)
        paths = {task.remote(dict(record), path, conditions): path
                 for path, record in records.items()}  # fmt: skip
        yield from collect(paths, stop, conditions)
    finally:
        ray.shutdown()


def in_ray(record: Mapping[str, Any], path: Path, conditions: Conditions) -> str | None:
    """One run in a worker of Ray; the lock of a lost worker is released by the system."""
    return carry_out(record, path, conditions)


def collect(
    paths: dict[Any, Path], stop: Callable[[], bool], conditions: Conditions
) -> Iterator[Outcome]:
    """Yield outcomes as runs end; once ``stop()`` is true, create the file that stops all."""
    import ray  # pyright: ignore[reportMissingImports]
    from ray.exceptions import RayError  # pyright: ignore[reportMissingImports]

    stopped = False
    while paths:
        if stop() and conditions.cancel is not None:
            conditions.cancel.touch()
        ready, _ = ray.wait(list(paths), num_returns=1, timeout=1)
        for each in ready:
            path, error = paths.pop(each), None
            try:
                error = ray.get(each)
            except RayError as lost:
                error = f"lost in Ray: {type(lost).__name__}: {first_line(lost)}"
            if error == STOPPED:
                stopped = True
            else:
                yield Outcome(path, error)
    if stopped:
        raise Stopped
