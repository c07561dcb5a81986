"""The picture of the study: what a method costs, and how much stays forgotten after relearning.

    python -m studies.relearning.picture

draws docs/relearning.svg again from results/relearning.json, without any run.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ilu.runs.report.palette import GUESSING, looks
from ilu.runs.report.svg import STYLE, inline
from ilu.system.atomic import write_text
from studies.relearning.table import RESULTS

FIGURE = RESULTS.parents[1] / "docs" / "relearning.svg"
CEILING = "never saw the agents"
NEAR, APART = 0.17, 0.055
"""Width of a label, as a share of cost, and the distance of two labels in height."""


class Marked(NamedTuple):
    """A labelled point, with the ends of its interval where several seeds are known."""

    label: str
    method: str
    distilled: bool
    x: float
    y: float
    low: float | None
    high: float | None


def points(record: Mapping[str, Any]) -> list[Marked]:
    """One point for each row."""
    return [
        Marked(
            label(row),
            row["method"],
            row["noise"] is not None,
            row["cost_share"],
            *row["relearned"],
        )
        for row in record["rows"]
    ]


def label(row: Mapping[str, Any]) -> str:
    """The recipe, and for UNDO its noise share and steps."""
    if row["noise"] is None:
        return row["method"]
    return f"{row['method']}-undo ({row['noise']:g}, {row['steps']} steps)"


def label_heights(found: Sequence[tuple[float, float]]) -> list[float]:
    """The height of the label on the right of each point: its own, or the next free one above.

    Points on the right and labels of lower points within ``NEAR`` are in the way.
    """
    heights: dict[int, float] = {}
    for i in sorted(range(len(found)), key=lambda i: found[i][1]):
        x, height = found[i]
        taken = [heights[k] for k in heights if abs(found[k][0] - x) < NEAR]
        taken += [b for a, b in found if 0 < a - x < NEAR]
        for other in sorted(taken):
            if abs(other - height) < APART:
                height = other + APART
        heights[i] = height
    return [heights[i] for i in range(len(found))]


def draw(record: Mapping[str, Any]) -> str:
    """The figure, whose points carry their names; the same bytes for the same record."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    found = points(record)
    with rc_context(STYLE):
        panel = Figure(figsize=(6.4, 3.6), layout="constrained")
        FigureCanvasSVG(panel)
        ax = panel.subplots()
        if record["ceiling"]:
            draw_ceiling(ax, record["ceiling"]["relearned"][0])
        methods = list(dict.fromkeys(each.method for each in found))
        colours = {m: look.colour for m, look in zip(methods, looks(methods), strict=True)}
        heights = label_heights([(each.x, each.y) for each in found])
        for each, height in zip(found, heights, strict=True):
            draw_point(ax, each, colours[each.method], height)
        ax.set_xlim(-0.01, max(each.x for each in found) + 0.19)
        ax.set_ylim(-0.05, 0.9)
        ax.set_xlabel("cost of the unlearning, as a share of that of pretraining")
        ax.set_ylabel("forgotten after relearning")
        return inline(panel).replace("<svg ", '<svg font-family="sans-serif" ', 1) + "\n"


def draw_ceiling(ax: Any, value: float) -> None:
    """The line of the model that never knew, with its name."""
    ax.axhline(value, color=GUESSING.colour, ls=GUESSING.dash, lw=1.3)
    ax.annotate(CEILING, (0, value), (0, 3), textcoords="offset points")


def draw_point(ax: Any, point: Marked, colour: str, height: float) -> None:
    """Draw the mark of a point, its interval, and its label on the right at ``height``.

    The mark of a distilled model is a square. With a single seed it is hollow and has no interval.
    """
    hollow = {} if point.low is not None else {"mfc": "none"}
    if point.low is not None:
        ax.plot((point.x, point.x), (point.low, point.high), color=colour, lw=0.8, alpha=0.6)
    ax.plot((point.x,), (point.y,), color=colour, marker="s" if point.distilled else "o", ms=5,
            **hollow)  # fmt: skip
    ax.annotate(point.label, (point.x, height), (7, 0), textcoords="offset points",
                color=colour, va="center", fontsize=8)  # fmt: skip


def write_figure(record: Mapping[str, Any], file: Path) -> None:
    """Draw the record, if it has a row."""
    if record["rows"]:
        write_text(file, draw(record))


def main() -> None:
    """Draw the published record."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    write_figure(json.loads(RESULTS.read_text(encoding="utf-8")), FIGURE)


if __name__ == "__main__":
    main()
