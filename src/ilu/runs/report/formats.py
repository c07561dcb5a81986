"""The table as Markdown, LaTeX, CSV and JSON; the HTML page is in ``page.py``."""

import csv
import io
import json
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from ilu.evals.score import written
from ilu.runs.report import escape
from ilu.runs.report.evaluate_files import read_evaluation
from ilu.runs.report.gather import Broken, gather
from ilu.runs.report.page import page
from ilu.runs.report.records import Change, before_and_after
from ilu.runs.report.table import Cell, Row, Table, make_table
from ilu.runs.results.run_metrics import USABLE
from ilu.system.atomic import write_text

ATTACKED = ("model", "attack", "metric", "before", "after", "change")
Place = tuple[int, int]
"""A row and a column of a table's body."""


def write_report(
    paths: Sequence[Path], out: Path, against: str | None = None, usable: float = USABLE
) -> None:
    """Write a report on run directories; the ending of ``out`` selects the format.

    ``paths`` may include score files of ``ilu evaluate`` (ending .json), which only the page shows.
    ``against``: label of the model that all others are compared with. ``usable``: share of the
    original's utility from which an attacked model counts in the worst usable case.
    """
    write = FORMATS.get(out.suffix)
    if write is None:
        raise ValueError(f"`out` {out}: the ending must be one of {', '.join(FORMATS)}")
    scores = [read_evaluation(path) for path in paths if path.suffix == ".json"]
    runs, broken = gather([path for path in paths if path.suffix != ".json"])
    table = make_table(runs, against, usable)
    if scores and write is not page:
        raise ValueError(
            f"`out` {out}: score files are shown on the page only: give a file that ends in .html"
        )
    html = write is page
    write_text(out, page(table, broken, scores, home=out.parent) if html else write(table, broken))


def to_markdown(table: Table, broken: Sequence[Broken]) -> str:
    """Markdown tables; runs that cannot be shown are listed below them."""
    parts = [models_markdown(table)]
    if changes := attack_changes(table.rows):
        parts.append(markdown_table(ATTACKED, list(map(change_cells, changes))))
    if broken:
        left = [f"* {escape.markdown(f'{each.place}: {each.state}')}" for each in broken]
        parts.append("\n".join(["Not in the table:", "", *left]))
    return "\n\n".join(parts) + "\n"


def models_markdown(table: Table) -> str:
    """The table of models as Markdown."""
    return markdown_table(
        ["model", *table.columns.values()], model_cells(table), best_places(table)
    )


def markdown_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], marked: Container[Place] = ()
) -> str:
    """A Markdown table; ``marked`` cells are bold."""
    lines = [f"| {' | '.join(map(escape.markdown, head))} |", f"|{'---|' * len(head)}"]
    for i, row in enumerate(rows):
        cells = [
            f"**{cell}**" if (i, j) in marked else escape.markdown(cell)
            for j, cell in enumerate(row)
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def to_latex(table: Table, broken: Sequence[Broken]) -> str:
    """Booktabs tables; runs that cannot be shown are comments below them."""
    head = ["Method", *table.columns.values()]
    parts = [latex_table(head, model_cells(table), best_places(table))]
    if changes := attack_changes(table.rows):
        parts.append(latex_table(ATTACKED, list(map(change_cells, changes)), words=3))
    left = [f"% not in the table: {escape.latex(f'{each.place}: {each.state}')}" for each in broken]
    return "\n".join(["\n\n".join(parts), *left]) + "\n"


def latex_table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    marked: Container[Place] = (),
    words: int = 1,
) -> str:
    """A LaTeX table; the first ``words`` columns are text, ``marked`` cells are bold."""
    columns = "l" * words + "r" * (len(head) - words)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines += [rf"{' & '.join(map(escape.latex, head))} \\", r"\midrule"]
    for i, row in enumerate(rows):
        cells = [escape.latex(cell).replace(" ± ", r" $\pm$ ") for cell in row]
        cells = [rf"\textbf{{{c}}}" if (i, j) in marked else c for j, c in enumerate(cells)]
        lines.append(rf"{' & '.join(cells)} \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def to_csv(table: Table, broken: Sequence[Broken]) -> str:
    """One line per model and measure, and one per run that cannot be shown."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["model", "measure", *Cell._fields, "best"])
    for row in table.rows:
        for key in table.columns:
            if found := row.cells.get(key):
                best = table.best.get(key) == row.label
                cells = [escape.spreadsheet(v) if isinstance(v, str) else v for v in found]
                writer.writerow(
                    [escape.spreadsheet(row.label), escape.spreadsheet(key), *cells, int(best)]
                )
    for change in attack_changes(table.rows):
        for when in ("before", "after", "change"):
            if found := getattr(change, when):
                what = f"{change.metric}, attack {change.attack}, {when}"
                writer.writerow([*map(escape.spreadsheet, (change.label, what)), *found, 0])
    for each in broken:
        place, state = (escape.spreadsheet(str(t)) for t in (each.place, each.state))
        writer.writerow([place, "not in the table", *[""] * (len(Cell._fields) - 1), state, 0])
    return buffer.getvalue()


def to_json(table: Table, broken: Sequence[Broken]) -> str:
    """The table with the run directories of each row."""
    found = {
        "schema": 2,
        "columns": table.columns,
        "best": table.best,
        "rows": [row_json(row) for row in table.rows],
        "attacks": list(map(change_json, attack_changes(table.rows))),
        "not_in_the_table": [{"run": str(each.place), "state": each.state} for each in broken],
    }
    return json.dumps(escape.clean(found), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def row_json(row: Row) -> Mapping[str, Any]:
    """A row with its run directories."""
    return {
        "model": row.label,
        "baseline": row.baseline,
        "runs": [{"path": str(m.run.path), "seed": m.recipe["seed"]} for m in row.runs],
        "cells": {key: found._asdict() for key, found in row.cells.items()},
    }


def change_json(change: Change) -> Mapping[str, Any]:
    """A metric before and after an attack."""
    label, attack, metric, *cells = change
    numbers = [found and found._asdict() for found in cells]
    return dict(zip(ATTACKED, (label, attack, metric, *numbers), strict=True))


def model_cells(table: Table) -> list[list[str]]:
    """The texts of the cells, row by row."""
    keys = table.columns
    return [[row.label, *(number(row.cells.get(key)) for key in keys)] for row in table.rows]


def best_places(table: Table) -> set[Place]:
    """Row and column of the values marked as best."""
    return {
        (i, j)
        for i, row in enumerate(table.rows)
        for j, key in enumerate(table.columns, start=1)
        if table.best.get(key) == row.label
    }


def attack_changes(rows: Sequence[Row]) -> list[Change]:
    """Effects of attacks on metrics that no column covers, such as losses on the user's data."""
    return [change for change in before_and_after(rows) if change.attack]


def change_cells(change: Change) -> list[str]:
    """The texts of a row under the heads ``ATTACKED``."""
    return [change.label, change.attack, change.metric, *map(number, change[3:])]


def number(cell: Cell | None) -> str:
    """A value with its standard error; a dash for None."""
    return "-" if cell is None else written(cell.value, cell.stderr, max(cell.n, cell.seeds))


FORMATS: Mapping[str, Callable[[Table, Sequence[Broken]], str]] = {
    ".html": page,
    ".md": to_markdown,
    ".json": to_json,
    ".csv": to_csv,
    ".tex": to_latex,
}
