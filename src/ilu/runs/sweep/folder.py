"""The folder of a sweep: its planned runs and the status of each."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ilu.runs.run_dir import DISTILLED, RunDir
from ilu.system.atomic import write_json
from ilu.system.locks import locked
from ilu.system.scores import STAGES

PLAN = "sweep.json"
State = Literal["done", "failed", "running", "interrupted", "waiting"]


class Status(NamedTuple):
    """The state of a run, the share of its steps that are done, and why it failed if it did."""

    state: State
    share: float
    seconds: float | None = None
    reason: str = ""


def write_plan(out: Path, records: Mapping[str, Any], *, search: bool = False) -> dict[str, Any]:
    """Add runs to the plan of a sweep, by name; return the complete plan.

    The plan has only recipes. The status of a run is read from its run directory.
    """
    nothing: dict[str, Any] = {"runs": {}, "search": False}
    plan = read_plan(out) if (out / PLAN).is_file() else nothing
    known: dict[str, Any] = plan["runs"]
    merged = {**known, **records}
    if merged != known or search != plan["search"]:
        write_json(out / PLAN, {"search": search or plan["search"], "runs": merged})
    return merged


def read_plan(out: Path) -> dict[str, Any]:
    """The plan of a sweep; its names are checked, because they become folders."""
    try:
        plan: dict[str, Any] = json.loads((out / PLAN).read_text(encoding="utf-8"))
        names = list(plan["runs"])
    except FileNotFoundError:
        raise ValueError(f"{out} is not the folder of a sweep: it has no {PLAN}") from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{out / PLAN} is damaged: delete it and repeat the command; finished runs stay"
        ) from None
    for name in names:
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise ValueError(f"{out / PLAN} names {name!r}, which is not the name of a run")
    return plan


def place(out: Path, name: str) -> Path:
    """The folder of a run."""
    return out / "runs" / name


def cancel_file(out: Path) -> Path:
    """The file whose existence stops every run of a sweep."""
    return out / "cancelled"


def shared(out: Path) -> Path:
    """The folder for results that the runs share."""
    return out / "shared"


def status(path: Path, record: Mapping[str, Any]) -> Status:
    """The status of a run, read from its folder."""
    run = RunDir(path)
    try:
        if locked(path):
            return Status("running", share(run, record))
        if run.has("done") and (why := run.failures()):
            return Status("failed", 1.0, reason="; ".join(f"{n}: {w}" for n, w in why.items()))
        if run.has("done"):
            return Status("done", 1.0, float(run.read("done")["seconds"]))
        if run.has("failed"):
            return Status("failed", share(run, record), reason=str(run.read("failed")["error"]))
    except (ValueError, KeyError, TypeError, OSError) as error:
        return Status("failed", 0.0, reason=f"cannot be read: {type(error).__name__}: {error}")
    begun = run.has("recipe")
    return Status("interrupted" if begun else "waiting", share(run, record) if begun else 0.0)


def share(run: RunDir, record: Mapping[str, Any]) -> float:
    """Share of a run's steps that are done; an unfinished attack counts by its stages."""
    attacks = {name: each["optim"]["steps"] if "optim" in each else 1
               for name, each in record["attacks"].items()}  # fmt: skip
    distilled = (record.get("undo") or {}).get("distil_steps", 0)
    total = record["optim"]["steps"] + distilled + sum(attacks.values())
    done = len(run.rows("train")) + len(run.rows(DISTILLED))
    for name, steps in attacks.items():
        reached = [part for stage, part in STAGES.items() if run.has(f"scores/{name}-{stage}")]
        done += steps * max(reached, default=0.0)
    return min(1.0, done / max(1, total))


def statuses(out: Path) -> dict[str, Status]:
    """The status of every planned run."""
    runs = read_plan(out)["runs"]
    return {name: status(place(out, name), record) for name, record in runs.items()}


def seconds_left(found: Mapping[str, Status], workers: int) -> float | None:
    """Estimated from the time of finished runs; None before the first one. Failed runs count."""
    took = [s.seconds for s in found.values() if s.seconds is not None]
    if not took:
        return None
    left = sum(1 - s.share for s in found.values() if s.state not in ("done", "failed"))
    return left * sum(took) / len(took) / max(1, workers)


def cancel(out: Path) -> None:
    """Make every process of this sweep save and stop."""
    read_plan(out)
    os.close(os.open(cancel_file(out), os.O_CREAT | os.O_WRONLY, 0o644))
