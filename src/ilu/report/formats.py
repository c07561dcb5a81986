"""The table of rows in the formats of documents and programs; the page is in ``page.py``."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ilu.files import write_text
from ilu.report import text
from ilu.report.cells import Broken, gather
from ilu.report.evaluations import read_evaluation
from ilu.report.page import page
from ilu.report.rows import Cell, Row, Table, make_table
from ilu.scores import written


def write_report(paths: Sequence[Path], out: Path, against: str | None = None) -> None:
    """Write the report on run directories in the format that the ending of ``out`` names.

    ``against``: the model that the others are compared with, question by question. The page also
    shows files of scores, known by their ending .json.
    """
    write = FORMATS.get(out.suffix)
    if write is None:
        raise ValueError(f"--out {out}: the ending must be one of {', '.join(FORMATS)}")
    scores = [read_evaluation(path) for path in paths if path.suffix == ".json"]
    runs, broken = gather([path for path in paths if path.suffix != ".json"])
    table = make_table(runs, against)
    if scores and write is not page:
        raise ValueError(f"--out {out}: files of scores are shown on the page only, give a .html")
    write_text(out, page(table, broken, scores) if scores else write(table, broken))


def to_markdown(table: Table, broken: Sequence[Broken]) -> str:
    """A table for a README; what could not be shown is listed below it."""
    head = ["model", *table.columns.values()]
    lines = [f"| {' | '.join(map(text.markdown, head))} |", f"|{'---|' * len(head)}"]
    for row in table.rows:
        cells = [
            mark(table, row, key, number(row.cells.get(key)), "**{}**") for key in table.columns
        ]
        lines.append(f"| {' | '.join([text.markdown(row.label), *cells])} |")
    left = [f"* {text.markdown(f'{each.place}: {each.state}')}" for each in broken]
    return "\n".join([*lines, *(["", "Not in the table:", "", *left] if left else [])]) + "\n"


def to_latex(table: Table, broken: Sequence[Broken]) -> str:
    """A booktabs table; what could not be shown stands below it as comments."""
    names = " & ".join(["Method", *map(text.latex, table.columns.values())])
    lines = [rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}", r"\toprule", rf"{names} \\"]
    lines.append(r"\midrule")
    for row in table.rows:
        shown = [number(row.cells.get(key)).replace(" ± ", r" $\pm$ ") for key in table.columns]
        cells = [
            mark(table, row, key, cell, r"\textbf{{{}}}")
            for key, cell in zip(table.columns, shown, strict=True)
        ]
        lines.append(rf"{' & '.join([text.latex(row.label), *cells])} \\")
    left = [f"% not in the table: {text.latex(f'{each.place}: {each.state}')}" for each in broken]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *left]) + "\n"


def to_csv(table: Table, broken: Sequence[Broken]) -> str:
    """One line per row and column, and one per run that could not be shown."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["model", "measure", *Cell._fields, "best"])
    for row in table.rows:
        for key in table.columns:
            if found := row.cells.get(key):
                best = table.best.get(key) == row.label
                cells = [text.spreadsheet(v) if isinstance(v, str) else v for v in found]
                writer.writerow(
                    [text.spreadsheet(row.label), text.spreadsheet(key), *cells, int(best)]
                )
    for each in broken:
        place, state = (text.spreadsheet(str(t)) for t in (each.place, each.state))
        writer.writerow([place, "not in the table", *[""] * (len(Cell._fields) - 1), state, 0])
    return buffer.getvalue()


def to_json(table: Table, broken: Sequence[Broken]) -> str:
    """Everything in the table and the runs behind each row."""
    found = {
        "schema": 1,
        "columns": table.columns,
        "best": table.best,
        "rows": [row_json(row) for row in table.rows],
        "not_in_the_table": [{"run": str(each.place), "state": each.state} for each in broken],
    }
    return json.dumps(text.clean(found), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def row_json(row: Row) -> Mapping[str, Any]:
    """A row with its runs."""
    return {
        "model": row.label,
        "baseline": row.baseline,
        "runs": [{"path": str(m.run.path), "seed": m.recipe["seed"]} for m in row.runs],
        "cells": {key: found._asdict() for key, found in row.cells.items()},
    }


def mark(table: Table, row: Row, key: str, shown: str, how: str) -> str:
    """The best value set apart."""
    return how.format(shown) if table.best.get(key) == row.label else shown


def number(cell: Cell | None) -> str:
    """A value with its standard error; a dash where there is none."""
    return "-" if cell is None else written(cell.value, cell.stderr, max(cell.n, cell.seeds))


FORMATS: Mapping[str, Callable[[Table, Sequence[Broken]], str]] = {
    ".html": page,
    ".md": to_markdown,
    ".json": to_json,
    ".csv": to_csv,
    ".tex": to_latex,
}
