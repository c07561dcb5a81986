"""``ilu bench methods``: a table of every method on the lab, with standard errors over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

from ilu.cli.arguments.bench import read
from ilu.cli.sweep import sweeping
from ilu.cli.terminal import console, table
from ilu.recipes.bench import QUICK, SEEDS, SIZE, jobs, names
from ilu.runs.results import display
from ilu.runs.results.summary import HEADLINE, over_seeds
from ilu.runs.run_dir import RunDir
from ilu.runs.sweep.folder import write_plan
from ilu.runs.sweep.worker import recorded
from ilu.system.atomic import write_json, write_text
from ilu.system.provenance import environment

COSTS = {"unlearn_seconds": "seconds", "peak_memory_mib": "MiB"}
COLUMNS = {key: display.COLUMNS[key] for key in HEADLINE} | COSTS


def main(argv: Sequence[str]) -> None:
    """Carry out the command."""
    wanted = read(argv)
    size = QUICK if wanted.quick else SIZE
    planned = jobs(wanted.only or names(), wanted.seed or SEEDS, size, wanted.out / "runs")
    records = {path.name: recorded(recipe) for path, recipe in planned.items()}
    with sweeping(wanted.out, wanted.where) as carry_out:
        write_plan(wanted.out, records)
        failed = carry_out(records)
    runs = [RunDir(path) for path in planned if path.name not in failed]
    rows = over_seeds(runs)
    write_json(wanted.out / "methods.json", {"environment": environment(), "rows": rows,
                                             "failed": failed})  # fmt: skip
    write_text(wanted.out / "methods.md", markdown(rows))
    head = ("recipe", "seeds", *COLUMNS.values())
    table("Means over seeds", head, cells(rows, errors=False))
    console.print(f"with standard errors: {wanted.out / 'methods.md'}", markup=False)
    for name, error in failed.items():
        console.print(f"failed: {name}: {error}", markup=False)
    if failed:
        raise ValueError(f"{len(failed)} of {len(planned)} runs failed: see above")


def cells(rows: Sequence[Mapping[str, Any]], *, errors: bool) -> list[tuple[str, ...]]:
    """The rows of the table as text."""
    return [
        (
            row["recipe"],
            str(row["seeds"]),
            *(cell(k, row[k], errors=errors and row["seeds"] > 1) for k in COLUMNS),
        )
        for row in rows
    ]


def cell(key: str, value: Mapping[str, float], *, errors: bool) -> str:
    """A mean, with its standard error if ``errors``; costs without decimals."""
    digits = 0 if key in COSTS else 3
    mean = f"{value['mean']:.{digits}f}"
    return f"{mean} ± {value['stderr']:.{digits}f}" if errors else mean


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as Markdown, with standard errors."""
    lines = [
        ("recipe", "seeds", *COLUMNS.values()),
        ("---",) * (len(COLUMNS) + 2),
        *cells(rows, errors=True),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
