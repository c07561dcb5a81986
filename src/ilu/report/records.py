"""What runs recorded beside scores: angles of task vectors, masks, and how to repeat a row."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ilu.measures import difference, score
from ilu.report.rows import Cell, Row, cell
from ilu.rundir import RunDir


class Angle(NamedTuple):
    """Cosines between task vectors of a row on one task, means over seeds; None if undefined."""

    label: str
    task: str
    cosines: Sequence[float | None]


def cosines(rows: Sequence[Row]) -> list[Angle]:
    """Every row and task whose task vectors were compared."""
    found: list[Angle] = []
    for row in rows:
        seeds = [m.run.read("vectors") for m in row.runs if m.run.has("vectors")]
        for task in seeds[0] if len(seeds) == len(row.runs) else ():
            angles = [each[task] for each in seeds if task in each]
            keys = ("ft_after_u__u", "ft_after_u__ft", "u__ft")
            found.append(Angle(row.label, task, [mean([a[k] for a in angles]) for k in keys]))
    return found


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


def masks(rows: Sequence[Row]) -> list[MaskMap]:
    """The mask of each row's first run that used one."""
    runs = [(row.label, row.first.run) for row in rows]
    return [mask_map(label, run.read("mask")) for label, run in runs if run.has("mask")]


def mask_map(label: str, record: Mapping[str, Any]) -> MaskMap:
    """A mask's densities as a grid: modules down, blocks across."""
    density: Mapping[str, Mapping[str, float]] = record["density"]
    blocks = sorted({b for row in density.values() for b in row}, key=block_order)
    grid = {
        module: [float(row[b]) if b in row else None for b in blocks]
        for module, row in density.items()
    }
    return MaskMap(label, str(record["score"]), float(record["fraction"]), blocks, grid)


def block_order(block: str) -> tuple[bool, int, str]:
    """Blocks by number, what is outside of them last."""
    return not block.isdigit(), int(block) if block.isdigit() else 0, block


class Change(NamedTuple):
    """A metric of a row before and after unlearning."""

    label: str
    metric: str
    before: Cell | None
    after: Cell
    change: Cell | None


def before_and_after(rows: Sequence[Row]) -> list[Change]:
    """Every metric of every row."""
    found: list[Change] = []
    for row in rows:
        for metric in row.first.stages.get("after", {}):
            before, after = (
                [score(m, stage, metric) for m in row.runs] for stage in ("before", "after")
            )
            changes = [difference(a, b) for a, b in zip(after, before, strict=True)]
            if known := cell(after):
                found.append(Change(row.label, metric, cell(before), known, cell(changes)))
    return found


class Repeat(NamedTuple):
    """How a row came about: commands, costs, doubts and the records that are its own."""

    label: str
    commands: Sequence[str]
    seconds: float
    warnings: Sequence[str]
    records: Mapping[str, str]
    scores: Sequence[tuple[str, str, Cell]]


def repeats(rows: Sequence[Row]) -> tuple[dict[str, str], list[Repeat]]:
    """What the records of all rows share, file by file, and what each has beside it."""
    files: dict[str, list[dict[str, Any]]] = {
        name: [row.first.run.read(name) for row in rows]
        for name in ("recipe", "environment", "data", "cost")
        if all(row.first.run.has(name) for row in rows)
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
    runs = [m.run for m in row.runs]
    commands = [line for run in runs for line in commands_of(run)]
    seconds = mean([run.read("done")["seconds"] for run in runs])
    return Repeat(row.label, commands, seconds or 0.0, warnings(runs), records, scores(row))


def commands_of(run: RunDir) -> list[str]:
    """The command that repeats a run, and as a comment the one that it was made by."""
    path = str(run.path)
    again = shlex.join(["ilu", "rerun", path, "--out", f"{path}-again"])
    argv = run.read("environment").get("argv") or []
    return [f"{again}  # made by: {shlex.join(['ilu', *map(str, argv)])}"] if argv else [again]


def warnings(runs: Sequence[RunDir]) -> list[str]:
    """What stands in the way of repeating a row."""
    found = [run.read("environment") for run in runs]
    told: list[str] = []
    if any(each.get("dirty") for each in found):
        told.append("The code had changes that were not committed: see code.diff in the run.")
    if len({each.get("commit") for each in found}) > 1:
        told.append("The seeds were run with different commits of the code.")
    return told


def scores(row: Row) -> list[tuple[str, str, Cell]]:
    """Every metric at every stage, averaged over seeds."""
    return [
        (stage, metric, found)
        for stage, metrics in row.first.stages.items()
        for metric in metrics
        if (found := row.over(lambda m, s=stage, k=metric: score(m, s, k)))
    ]

