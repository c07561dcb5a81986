"""Figures of recorded landscapes, and of the similarity of hidden states."""

from collections.abc import Sequence

from ilu.runs.report.figures import Panel, entries
from ilu.runs.report.palette import looks
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
    for style, row in enumerate(rows):
        for texts, record in row.first.records.get("representations", {}).get("cka", {}).items():
            points = [(float(i), float(v)) for i, v in enumerate(record["layers"]) if v is not None]
            panels.setdefault(texts, []).append(Line(style, points))
    names = [row.label for row in rows]
    drawn = {line.style for lines in panels.values() for line in lines}
    legend = [each for each in entries(names) if each.style in drawn]
    return [
        Panel(t, figure(lines, looks(names), x="layer", y="CKA"), legend)
        for t, lines in panels.items()
    ]
