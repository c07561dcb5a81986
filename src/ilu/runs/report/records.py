"""Records of runs for the report: task-vector angles, masks, changes, and how to repeat a row."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ilu.evals.score import difference
from ilu.runs.report.places import local, local_record, shortened
from ilu.runs.report.table import Cell, Row, cell
from ilu.runs.results.forget_metric import PICKS
from ilu.runs.results.run_metrics import Measured, start_stage

COSINES = ("ft_after_u__u", "ft_after_u__ft", "u__ft")
Angles = Mapping[str, Sequence[float | None]]
"""Task -> the cosines of ``COSINES``, means over seeds; None where a vector is zero."""


def cosines(rows: Sequence[Row]) -> dict[str, Angles]:
    """Label -> angles, for every row with recorded task vectors."""
    return {row.label: found for row in rows if (found := angles(row))}


def angles(row: Row) -> Angles:
    """Mean angles on the tasks that every seed has."""
    if not all("vectors" in m.records for m in row.runs):
        return {}
    first, *rest = (m.records["vectors"] for m in row.runs)
    tasks = [task for task in first if all(task in each for each in rest)]
    return {
        task: [mean([seed[task][key] for seed in (first, *rest)]) for key in COSINES]
        for task in tasks
    }


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are not None."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


class MaskMap(NamedTuple):
    """Share of trained weights by module and block."""

    label: str
    score: str
    fraction: float
    blocks: Sequence[str]
    density: Mapping[str, Sequence[float | None]]
    quantiles: Mapping[str, float]


def masks(rows: Sequence[Row]) -> list[MaskMap]:
    """The mask of every row whose first run used one."""
    found = [(row.label, row.first.records.get("mask")) for row in rows]
    return [mask_map(label, record) for label, record in found if record]


def mask_map(label: str, record: Mapping[str, Any]) -> MaskMap:
    """The densities of a mask as a grid: a row per module, a column per block."""
    density: Mapping[str, Mapping[str, float]] = record["density"]
    blocks = sorted({b for row in density.values() for b in row}, key=block_order)
    grid = {
        module: [float(row[b]) if b in row else None for b in blocks]
        for module, row in density.items()
    }
    quantiles = {f"{float(q):.0%}": float(x) for q, x in (record.get("quantiles") or {}).items()}
    return MaskMap(label, str(record["score"]), float(record["fraction"]), blocks, grid, quantiles)


def block_order(block: str) -> tuple[bool, int, str]:
    """Sort key: blocks by number, weights outside of blocks last."""
    return not block.isdigit(), int(block) if block.isdigit() else 0, block


class Change(NamedTuple):
    """A displayed metric before and after an attack; an empty ``attack`` means unlearning."""

    label: str
    attack: str
    metric: str
    before: Cell | None
    after: Cell
    change: Cell | None


def before_and_after(rows: Sequence[Row]) -> list[Change]:
    """Every metric of every row before and after each change of its model."""
    return [
        found
        for row in rows
        for attack in changed_by(row.first)
        for metric in row.first.displayed(f"{attack}-end" if attack else "after")
        if PICKS not in metric
        if (found := change(row, attack, metric))
    ]


def changed_by(m: Measured) -> list[str]:
    """Changes of a model: "" for unlearning, and its attacks.

    Attacks are left out where the forget metric is known: other tables have them.
    """
    unlearned = [""] if m.recipe["objective"] or not m.attacks else []
    return [*unlearned, *(m.attacks if m.forget is None else [])]


def change(row: Row, attack: str, metric: str) -> Change | None:
    """One metric over the seeds; None if a seed lacks it."""
    start = [start_stage(m, attack) if attack else "before" for m in row.runs]
    before = [m.displayed(stage).get(metric) for m, stage in zip(row.runs, start, strict=True)]
    after = [m.displayed(f"{attack}-end" if attack else "after").get(metric) for m in row.runs]
    changes = [difference(a, b) for a, b in zip(after, before, strict=True)]
    known = cell(after)
    return known and Change(row.label, attack, metric, cell(before), known, cell(changes))


class Repeat(NamedTuple):
    """How to repeat a row: commands, time, warnings, and records that differ from other rows."""

    label: str
    commands: Sequence[str]
    seconds: float
    warnings: Sequence[str]
    records: Mapping[str, str]
    scores: Sequence[str]


def repeats(rows: Sequence[Row], home: Path) -> tuple[dict[str, str], list[Repeat]]:
    """Record file -> entries that all rows share, and the rest row by row.

    Paths are relative to ``home``, the folder of the page.
    """
    files = {
        name: [local_record(row.first.records[name], home) for row in rows]
        for name in ("recipe", "environment", "data", "cost")
        if all(name in row.first.records for row in rows)
    }
    shared = {name: shared_entries(found) for name, found in files.items() if len(rows) > 1}
    own = [
        {name: dump(without(found[i], shared.get(name, {}))) for name, found in files.items()}
        for i in range(len(rows))
    ]
    common = {name: dump(entries) for name, entries in shared.items() if entries}
    return common, [repeat(row, records, home) for row, records in zip(rows, own, strict=True)]


def shared_entries(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Entries that are the same in all records."""
    first, *rest = records
    return {k: v for k, v in first.items() if all(k in r and r[k] == v for r in rest)}


def without(record: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """A record without the entries of ``known``."""
    return {k: v for k, v in record.items() if k not in known}


def dump(record: Mapping[str, Any]) -> str:
    """A record as indented JSON."""
    return json.dumps(record, indent=1, ensure_ascii=False)


def repeat(row: Row, records: Mapping[str, str], home: Path) -> Repeat:
    """Commands, time, warnings, records and scores of a row."""
    seconds = sum(m.records["done"]["seconds"] for m in row.runs) / len(row.runs)
    commands = [command(m, home) for run in row.runs for m in (run, *run.attackers)]
    return Repeat(row.label, commands, seconds, warnings(row), records, scores(row))


def command(m: Measured, home: Path) -> str:
    """The command that repeats a run, with the original command as a comment."""
    path = shortened(str(m.run.path), home)
    again = shlex.join(["ilu", "rerun", path, "--out", f"{path}-again"])
    argv = [local(str(word), home) for word in m.records["environment"].get("argv") or ()]
    return f"{again}  # made by: {shlex.join(['ilu', *argv])}" if argv else again


def warnings(row: Row) -> list[str]:
    """Reasons why repeating a row may give other numbers."""
    found = [m.records["environment"] for m in row.runs]
    reasons: list[str] = []
    if any(each.get("dirty") for each in found):
        reasons.append("The code had uncommitted changes: see code.diff in the run directory.")
    if len({str(each.get("commit")) for each in found}) > 1:
        reasons.append("The seeds were run with different commits of the code.")
    return reasons


def scores(row: Row) -> list[str]:
    """One line per stage and metric: mean over seeds, standard error, number of items."""
    return [
        f"{stage:<16} {metric:<16} {mean.value:.4f} ± {mean.stderr:.4f}  n {mean.n}"
        for stage in row.first.stages
        for metric in row.first.displayed(stage)
        if (mean := row.over(lambda m, s=stage, k=metric: m.displayed(s).get(k)))
    ]
