"""A sweep of 24 runs, killed at random moments and repeated until it is done; one left alone.

    python -m tests.soak.sweep --kills 12 --out sweep.json        (make soak)

A kill takes either the command with all its processes, as when a machine goes down, or one process
of it at random: a run, or the one that runs are forked from. Then the same command is given again.
At the end every file of every run is compared byte by byte with that of the other sweep, but for
those that say when, how and for how long. ``--kills`` is a limit: the sweep may be done before.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psutil

from ilu.runs.sweep import folder
from ilu.system.atomic import file_hash, write_json
from tests.soak.kill import check_whole

GRID = ("lr=1e-4,3e-4,1e-3", "seed=0:8")
CODE = "import sys; from ilu.cli.main import run; sys.exit(run(sys.argv[1:]))"
TIMES = {"done.json", "cost.json", "environment.json"}
PATIENCE = 600
"""Seconds after which a command hangs."""


def words(out: Path, steps: int) -> list[str]:
    """The command."""
    what = ["npo", "--model=lab", f"--steps={steps}", "--grid", *GRID, f"--out={out}"]
    return [sys.executable, "-c", CODE, "sweep", *what, "--workers=2", "--save-every=5"]


def begin(out: Path, steps: int) -> subprocess.Popen[bytes]:
    """Give the command, as the first of a session of its own."""
    return subprocess.Popen(
        words(out, steps), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip


def kill(driver: subprocess.Popen[bytes], draw: random.Random) -> str:
    """Kill all of the command, or one process that it has begun; return which."""
    below = psutil.Process(driver.pid).children(recursive=True)
    if not below or draw.random() < 0.5:
        os.killpg(driver.pid, signal.SIGKILL)
        return "all"
    draw.choice(below).kill()
    return "one"


def killed(out: Path, steps: int, kills: int, draw: random.Random, span: float) -> Counter[str]:
    """Give the command, kill, and give it again until it is done; count what was done."""
    did = Counter[str]()
    while True:
        did["commands"] += 1
        driver = begin(out, steps)
        while did["all"] + did["one"] < kills:
            try:
                driver.wait(draw.uniform(0, span))
                break
            except subprocess.TimeoutExpired:
                did[kill(driver, draw)] += 1
        if driver.wait(PATIENCE) == 0:
            return did
        until = time.monotonic() + PATIENCE
        while (out / folder.PLAN).is_file() and running(out):  # those that outlived their command
            if time.monotonic() > until:
                raise SystemExit(f"a run of {out} does not end")
            time.sleep(0.2)
        did["files_read"] += check_whole(out) if out.exists() else 0


def running(out: Path) -> bool:
    """Whether a run is under way."""
    return any(each.state == "running" for each in folder.statuses(out).values())


def content(out: Path) -> dict[str, str]:
    """Hash of every file of every run, and of the plan."""
    files = [p for p in (out / "runs").rglob("*") if p.is_file() and p.name not in TIMES]
    return {str(p.relative_to(out)): file_hash(p) for p in [*files, out / folder.PLAN]}


def main(arguments: Sequence[str]) -> None:
    """Soak, and write what was done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        whole, cut = Path(temporary) / "whole", Path(temporary) / "cut"
        began = time.monotonic()
        if begin(whole, asked.steps).wait(PATIENCE):
            raise SystemExit("the sweep that is left alone fails")
        seconds = time.monotonic() - began
        span = 4 * seconds / asked.kills
        did = killed(cut, asked.steps, asked.kills, random.Random(asked.seed), span)
        wanted, got = content(whole), content(cut)
        differ = sorted(n for n in wanted.keys() | got.keys() if wanted.get(n) != got.get(n))
        left = [p for p in cut.rglob("*") if p.suffix in (".partial", ".lock")]
        runs = len(folder.read_plan(cut)["runs"])
    found = {
        "runs": runs, "steps": asked.steps, **did, "files_compared": len(wanted),
        "differ": len(differ), "leftovers": len(left), "seconds_undisturbed": round(seconds, 1),
        "seconds": round(time.monotonic() - began - seconds, 1),
    }  # fmt: skip
    print(found)  # noqa: T201
    if asked.out:
        write_json(asked.out, found)
    if differ:
        raise SystemExit(f"other bytes: {', '.join(differ[:5])}")


if __name__ == "__main__":
    main(sys.argv[1:])
