"""Figures of what was measured beside a run: a landscape, and what became of hidden states."""

from collections.abc import Sequence

from ilu.runs.report.figures import Panel, entry
from ilu.runs.report.svg import Line, figure, terrain
from ilu.runs.report.table import Row


def landscape_figures(rows: Sequence[Row]) -> list[Panel]:
    """Per row with a landscape, a figure of every score on it."""
    found = [(row.label, row.first.records.get("landscape")) for row in rows]
    return [
        Panel(f"{label}, {metric}", terrain(record, metric))
        for label, record in found
        if record
        for metric in dict.fromkeys(m for point in record["points"] for m in point["scores"])
    ]


def similarity_figures(rows: Sequence[Row]) -> list[Panel]:
    """CKA with the original model by layer: a panel for each set of texts, a line for each row."""
    panels: dict[str, list[Line]] = {}
    names: dict[int, str] = {}
    for style, row in enumerate(rows):
        for texts, record in row.first.records.get("representations", {}).get("cka", {}).items():
            points = [(float(i), float(v)) for i, v in enumerate(record["layers"]) if v is not None]
            panels.setdefault(texts, []).append(Line(style, points))
            names[style] = row.label
    legend = [entry(label, style) for style, label in names.items()]
    return [Panel(t, figure(lines, x="layer", y="CKA"), legend) for t, lines in panels.items()]
