"""Figures of recorded landscapes, and of the similarity of hidden states."""

from collections.abc import Sequence

from ilu.runs.report.figures import Panel, entry
from ilu.runs.report.svg import Line, figure, landscape_svg
from ilu.runs.report.table import Row


def landscape_figures(rows: Sequence[Row]) -> list[Panel]:
    """One figure per row and score, for rows with a recorded landscape."""
    found = [(row.label, row.first.records.get("landscape")) for row in rows]
    return [
        Panel(f"{label}, {metric}", landscape_svg(record, metric))
        for label, record in found
        if record
        for metric in dict.fromkeys(m for point in record["points"] for m in point["scores"])
    ]


def similarity_figures(rows: Sequence[Row]) -> list[Panel]:
    """CKA with the original model by layer: a panel per set of texts, a line per row."""
    panels: dict[str, list[Line]] = {}
    names: dict[int, str] = {}
    for style, row in enumerate(rows):
        for texts, record in row.first.records.get("representations", {}).get("cka", {}).items():
            points = [(float(i), float(v)) for i, v in enumerate(record["layers"]) if v is not None]
            panels.setdefault(texts, []).append(Line(style, points))
            names[style] = row.label
    legend = [entry(label, style) for style, label in names.items()]
    return [Panel(t, figure(lines, x="layer", y="CKA"), legend) for t, lines in panels.items()]
