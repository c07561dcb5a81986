"""What runs recorded beside scores: angles of task vectors, masks, and how to repeat a row."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ilu.evals.score import difference
from ilu.runs.report.table import Cell, Row, cell
from ilu.runs.results.run_metrics import Measured, beginning, score

COSINES = ("ft_after_u__u", "ft_after_u__ft", "u__ft")
Angles = Mapping[str, Sequence[float | None]]
"""Task -> the cosines of ``COSINES``, means over seeds; None where one is undefined."""


def cosines(rows: Sequence[Row]) -> dict[str, Angles]:
    """Label -> angles, for every row whose task vectors were compared."""
    return {row.label: found for row in rows if (found := angles(row))}


def angles(row: Row) -> Angles:
    """Angles on the tasks that every seed has."""
    if not all("vectors" in m.records for m in row.runs):
        return {}
    first, *rest = (m.records["vectors"] for m in row.runs)
    tasks = [task for task in first if all(task in each for each in rest)]
    return {
        task: [mean([seed[task][key] for seed in (first, *rest)]) for key in COSINES]
        for task in tasks
    }


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are defined."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


class MaskMap(NamedTuple):
    """Which share of each module's weights may move, block by block."""

    label: str
    score: str
    fraction: float
    blocks: Sequence[str]
    density: Mapping[str, Sequence[float | None]]
    quantiles: Mapping[str, float]


def masks(rows: Sequence[Row]) -> list[MaskMap]:
    """The mask of each row's first run that used one."""
    found = [(row.label, row.first.records.get("mask")) for row in rows]
    return [mask_map(label, record) for label, record in found if record]


def mask_map(label: str, record: Mapping[str, Any]) -> MaskMap:
    """A mask's densities as a grid: modules down, blocks across."""
    density: Mapping[str, Mapping[str, float]] = record["density"]
    blocks = sorted({b for row in density.values() for b in row}, key=block_order)
    grid = {
        module: [float(row[b]) if b in row else None for b in blocks]
        for module, row in density.items()
    }
    quantiles = {f"{float(q):.0%}": float(x) for q, x in (record.get("quantiles") or {}).items()}
    return MaskMap(label, str(record["score"]), float(record["fraction"]), blocks, grid, quantiles)


def block_order(block: str) -> tuple[bool, int, str]:
    """Blocks by number, what is outside of them last."""
    return not block.isdigit(), int(block) if block.isdigit() else 0, block


class Change(NamedTuple):
    """A metric of a row before and after an attack, or unlearning if there is none."""

    label: str
    attack: str
    metric: str
    before: Cell | None
    after: Cell
    change: Cell | None


def before_and_after(rows: Sequence[Row]) -> list[Change]:
    """Every metric of every row before and after what changed its model."""
    return [
        found
        for row in rows
        for attack in changed_by(row.first)
        for metric in row.first.stages.get(f"{attack}-end" if attack else "after", {})
        if (found := change(row, attack, metric))
    ]


def changed_by(m: Measured) -> list[str]:
    """What changed a model: the unlearning, "", and attacks.

    These are left to other tables where a metric is known that means forgetting.
    """
    unlearned = [""] if m.recipe["objective"] or not m.attacks else []
    return [*unlearned, *(m.attacks if m.forget is None else [])]


def change(row: Row, attack: str, metric: str) -> Change | None:
    """One metric, over the seeds; nothing if one of these lacks it."""
    begin = [beginning(m, attack) if attack else "before" for m in row.runs]
    before = [score(m, stage, metric) for m, stage in zip(row.runs, begin, strict=True)]
    after = [score(m, f"{attack}-end" if attack else "after", metric) for m in row.runs]
    moved = [difference(a, b) for a, b in zip(after, before, strict=True)]
    known = cell(after)
    return known and Change(row.label, attack, metric, cell(before), known, cell(moved))


class Repeat(NamedTuple):
    """How a row came about: commands, costs, doubts and the records that are its own."""

    label: str
    commands: Sequence[str]
    seconds: float
    warnings: Sequence[str]
    records: Mapping[str, str]
    scores: Sequence[str]


def repeats(rows: Sequence[Row]) -> tuple[dict[str, str], list[Repeat]]:
    """What the records of all rows share, file by file, and what each has beside it."""
    files = {
        name: [row.first.records[name] for row in rows]
        for name in ("recipe", "environment", "data", "cost")
        if all(name in row.first.records for row in rows)
    }
    shared = {name: in_common(found) for name, found in files.items() if len(rows) > 1}
    own = [
        {name: dump(without(found[i], shared.get(name, {}))) for name, found in files.items()}
        for i in range(len(rows))
    ]
    told = {name: dump(found) for name, found in shared.items() if found}
    return told, [repeat(row, records) for row, records in zip(rows, own, strict=True)]


def in_common(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Entries that are the same in all records."""
    first, *rest = records
    return {k: v for k, v in first.items() if all(k in r and r[k] == v for r in rest)}


def without(record: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """A record less what is known."""
    return {k: v for k, v in record.items() if k not in known}


def dump(record: Mapping[str, Any]) -> str:
    """A record for the eye."""
    return json.dumps(record, indent=1, ensure_ascii=False)


def repeat(row: Row, records: Mapping[str, str]) -> Repeat:
    """The commands that repeat a row."""
    seconds = sum(m.records["done"]["seconds"] for m in row.runs) / len(row.runs)
    commands = [command(m) for run in row.runs for m in (run, *run.attackers)]
    return Repeat(row.label, commands, seconds, warnings(row), records, scores(row))


def command(m: Measured) -> str:
    """The command that repeats a run, and as a comment the one that it was made by."""
    path = str(m.run.path)
    again = shlex.join(["ilu", "rerun", path, "--out", f"{path}-again"])
    argv = m.records["environment"].get("argv")
    return f"{again}  # made by: {shlex.join(['ilu', *map(str, argv)])}" if argv else again


def warnings(row: Row) -> list[str]:
    """What stands in the way of repeating a row."""
    found = [m.records["environment"] for m in row.runs]
    told: list[str] = []
    if any(each.get("dirty") for each in found):
        told.append("The code had changes that were not committed: see code.diff in the run.")
    if len({str(each.get("commit")) for each in found}) > 1:
        told.append("The seeds were run with different commits of the code.")
    return told


def scores(row: Row) -> list[str]:
    """Every metric at every stage, averaged over seeds, a line each."""
    return [
        f"{stage:<16} {metric:<16} {found.value:.4f} ± {found.stderr:.4f}  n {found.n}"
        for stage, metrics in row.first.stages.items()
        for metric in metrics
        if (found := row.over(lambda m, s=stage, k=metric: score(m, s, k)))
    ]
