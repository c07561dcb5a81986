"""The table of what the finished runs of a sweep have forgotten."""

from collections.abc import Iterable
from pathlib import Path

from ilu.cli.terminal import table
from ilu.evals.score import written
from ilu.runs.report.table import Cell, make_table
from ilu.runs.results.run_metrics import Measured, read
from ilu.runs.run_dir import RunDir
from ilu.runs.sweep.folder import place

FORGOTTEN = "forgotten"
SHOWN = (FORGOTTEN, "utility", "worst_case", "worst_usable")
"""Columns of the report that are shown, if a run has them."""


def show_results(out: Path, names: Iterable[str]) -> None:
    """Print one row per recipe, means over seeds, as in the report.

    Nothing is printed where it is not known what measures forgetting.
    """
    found = [finished(RunDir(place(out, name))) for name in names]
    done = [m for m in found if m is not None]
    if not done:
        return
    columns, rows, *_ = make_table(done)
    keys = [key for key in SHOWN if key in columns]
    if FORGOTTEN in keys:
        lines = [(row.label, *(shown(row.cells.get(key)) for key in keys)) for row in rows]
        table("means over seeds", ("run", *(columns[key] for key in keys)), lines)


def finished(run: RunDir) -> Measured | None:
    """The run, if it is finished; one whose files are damaged is reported by its status."""
    try:
        return read(run) if run.has("done") and not run.failures() else None
    except (ValueError, KeyError, TypeError, OSError):
        return None


def shown(cell: Cell | None) -> str:
    """A number with its standard error, and the attack of a worst case."""
    if cell is None:
        return "-"
    note = f" ({cell.note})" if cell.note else ""
    return f"{written(cell.value, cell.stderr, cell.n)}{note}"
