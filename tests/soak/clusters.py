"""A sweep carried out by Ray or by Slurm, with faults on the way; the same sweep here, left alone.

    python -m tests.soak.clusters ray --out clusters.json
    python -m tests.soak.clusters slurm --out clusters.json --kill-node "COMMAND"

``ray`` needs Ray and begins two nodes on this machine, each a process with its workers. ``slurm``
needs submitit and a Slurm that runs, all its nodes on this machine, with ``sacct``;
``COMMAND`` kills a node of it and all that runs there, and that fault is left out without it. Each
fault comes when every run has done some steps. Then the same command is given until the sweep is
done, and every file of every run is compared byte by byte with that of the executor ``local``, but
for those that say when and how.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from ilu.runs.sweep import folder
from ilu.system.atomic import write_json
from ilu.system.provenance import environment
from tests.soak.sweep import CODE, PATIENCE, content, running

PORT = 6399
SETTLED = 3
"""Steps that every run has done when the fault comes."""
MOST = 4
"""Commands until the sweep is to be done."""


@dataclass(frozen=True)
class Trial:
    """A sweep that is under way in a folder: how it was begun, and who carries it out."""

    out: Path
    driver: subprocess.Popen[str]


Fault = Callable[[Trial], None]


def words(out: Path, steps: int, executor: Sequence[str]) -> list[str]:
    """The command."""
    what = ["npo", "--model=lab", f"--steps={steps}", "--grid", "seed=0:2", f"--out={out}"]
    return [sys.executable, "-c", CODE, "sweep", *what, "--save-every=5", *executor]


def begin(out: Path, steps: int, executor: Sequence[str]) -> Trial:
    """Give the command, as the first of a session of its own."""
    log = (out.parent / f"{out.name}.log").open("a", encoding="utf-8")
    with log:
        driver = subprocess.Popen(
            words(out, steps, executor), stdout=log, stderr=log, text=True, start_new_session=True
        )
    return Trial(out, driver)


def await_steps(trial: Trial) -> None:
    """Wait until every run has done some steps."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and trial.driver.poll() is None:
        logs = list(trial.out.glob("runs/*/train.jsonl"))
        if len(logs) == 2 and all(len(p.read_bytes().splitlines()) >= SETTLED for p in logs):
            return
        time.sleep(0.5)
    raise SystemExit(f"{trial.out.name}: no run got as far as its fault")


def tried(fault: Fault, out: Path, steps: int, executor: Sequence[str]) -> dict[str, Any]:
    """Carry out a sweep with one fault, repeat the command until it is done; say how it went."""
    began, codes = time.monotonic(), list[int]()
    while len(codes) < MOST and 0 not in codes:
        trial = begin(out, steps, executor)
        if not codes:
            await_steps(trial)
            fault(trial)
        codes.append(trial.driver.wait(PATIENCE))
        until = time.monotonic() + PATIENCE
        while running(out) and time.monotonic() < until:  # those that outlived their command
            time.sleep(1)
    said = (out.parent / f"{out.name}.log").read_text(encoding="utf-8").splitlines()
    return {
        "exit_codes": codes, "seconds": round(time.monotonic() - began, 1),
        "tracebacks": sum(line.startswith("Traceback") for line in said),
        "said": [line.replace(str(out), "DIR") for line in said if line.startswith(SAYS)],
    }  # fmt: skip


SAYS = ("stopped", "error", "failed", "interrupted", "running")


def kill_driver(trial: Trial) -> None:
    """As when the machine that the command was given on goes down."""
    os.killpg(trial.driver.pid, signal.SIGKILL)


def cancel(trial: Trial) -> None:
    """What ``ilu sweep cancel`` does."""
    folder.cancel(trial.out)


def kill_run(trial: Trial) -> None:
    """SIGKILL for the process of one run, whose number is in its lock."""
    lock = next((trial.out / "runs").glob(".*.lock"))
    os.kill(int(lock.read_text(encoding="utf-8").split()[1]), signal.SIGKILL)


# --- Ray -------------------------------------------------------------------------------------


class Node:
    """A node of Ray: ``ray start --block`` and what it has begun."""

    def __init__(self, *where: str) -> None:
        command = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--num-cpus=1"]
        more = ["--object-store-memory=100000000", "--disable-usage-stats", *where]
        self.process = subprocess.Popen(
            [*command, *more], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def kill(self) -> None:
        """All of it at once, as when its machine goes down."""
        if self.process.poll() is None:
            every = psutil.Process(self.process.pid).children(recursive=True)
            for each in [psutil.Process(self.process.pid), *every]:
                each.kill()
        self.process.wait()


@contextmanager
def ray_cluster() -> Iterator[tuple[list[str], Mapping[str, Fault]]]:
    """Two nodes with a core each, the flags to use them, and what can go wrong."""
    head = Node("--head", f"--port={PORT}", "--include-dashboard=false")
    time.sleep(30)
    nodes = [Node(f"--address=127.0.0.1:{PORT}")]
    time.sleep(20)

    def kill_node(trial: Trial) -> None:
        nodes[-1].kill()
        nodes.append(Node(f"--address=127.0.0.1:{PORT}"))

    try:
        faults = {"driver": kill_driver, "node": kill_node, "run": kill_run, "cancel": cancel}
        yield ["--executor=ray", f"--address=127.0.0.1:{PORT}"], faults
    finally:
        for each in [*nodes, head]:
            each.kill()


# --- Slurm -----------------------------------------------------------------------------------


def first_job(trial: Trial) -> str:
    """The job of a sweep's first run."""
    return min((trial.out / "slurm").glob("*_submitted.pkl")).name.removesuffix("_submitted.pkl")


def scancel(*more: str) -> Fault:
    """A signal from Slurm to one job, or its end."""
    return lambda trial: carried_out(["scancel", *more, first_job(trial)])


def carried_out(command: Sequence[str]) -> None:
    """Run a command."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def slurm_cluster(kill_node: str | None) -> Iterator[tuple[list[str], Mapping[str, Fault]]]:
    """The Slurm that runs here, and what can go wrong."""
    faults: dict[str, Fault] = {
        "driver": kill_driver, "cancel": cancel, "run": kill_run, "scancel": scancel(),
        "notice": scancel("--signal=USR2"),
    }  # fmt: skip
    if kill_node:
        faults["node"] = lambda trial: carried_out(shlex.split(kill_node))
    yield ["--executor=slurm"], faults


def versions(engine: str) -> dict[str, str]:
    """Of what was tried."""
    if engine == "ray":
        return {"ray": version("ray")}
    told = subprocess.run(["sinfo", "--version"], check=True, capture_output=True, text=True)
    return {"submitit": version("submitit"), "slurm": told.stdout.split()[-1]}


def main(arguments: Sequence[str]) -> None:
    """Try, and write what happened into the record, beside what it says of the other trials."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("engine", choices=["ray", "slurm"])
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--kill-node")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args(arguments)
    cluster = ray_cluster() if asked.engine == "ray" else slurm_cluster(asked.kill_node)
    known = json.loads(asked.out.read_text()) if asked.out and asked.out.is_file() else {}
    trials: dict[str, Any] = known.get(asked.engine, {}).get("trials", {})
    where = {**environment(), "argv": None}
    known[asked.engine] = {**versions(asked.engine), "environment": where, "trials": trials}
    with tempfile.TemporaryDirectory() as temporary, cluster as (executor, faults):
        wanted = Path(temporary) / "local"
        if begin(wanted, asked.steps, ["--workers=1"]).driver.wait(PATIENCE):
            raise SystemExit("the sweep that is left alone fails")
        for name, fault in faults.items():
            if asked.only and name not in asked.only:
                continue
            out = Path(temporary) / name.replace(" ", "-")
            row = tried(fault, out, asked.steps, executor)
            row["differ"] = len(dict(content(wanted).items() ^ content(out).items()))
            row["undone"] = sum(s.state != "done" for s in folder.statuses(out).values())
            trials[name] = {"steps": asked.steps, **row}
            print(name, row, flush=True)  # noqa: T201
            if asked.out:
                write_json(asked.out, known)
    wrong = [n for n, r in trials.items() if r["differ"] or r["undone"] or r["tracebacks"]]
    if wrong:
        raise SystemExit(f"not as it should be: {', '.join(wrong)}")


if __name__ == "__main__":
    main(sys.argv[1:])
