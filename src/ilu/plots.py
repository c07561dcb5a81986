"""Figures of the report as inline SVG: the same bytes for the same numbers, no script, no names.

Names of models and terms are untrusted text, so they stand in the page and never in a figure.
"""

import io
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "ilu",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": "#808080",
    "axes.labelcolor": "#808080",
    "axes.edgecolor": "#808080",
    "xtick.color": "#808080",
    "ytick.color": "#808080",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.transparent": True,
}
"""Grey on transparent, so that one figure serves light and dark pages."""
COLOURS = (
    "#3b82c4", "#e07b39", "#3f9e5a", "#c94f4f", "#8d6cc4",
    "#a0745a", "#d36fae", "#7a7f85", "#a8a02c", "#2fa7b5",
)  # fmt: skip
DASHES = ("-", "--", ":")

Point = tuple[float, float]


class Line(NamedTuple):
    """Points of one series; ``style`` is its place in the legend, ``error`` half of its band."""

    style: int
    points: Sequence[Point]
    error: Sequence[float] = ()


def colour(style: int) -> str:
    """Colour of a series."""
    return COLOURS[style % len(COLOURS)]


def dash(style: int) -> str:
    """How its line is broken, which tells series of the same colour apart."""
    return DASHES[style // len(COLOURS) % len(DASHES)]


def figure(lines: Sequence[Line], *, x: str, y: str, log: bool = False) -> str:
    """One small panel; shares from 0 to 1, or with ``log`` values of any size."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        panel = Figure(figsize=(3.4, 2.3), layout="constrained")
        FigureCanvasSVG(panel)
        ax = panel.subplots()
        for line in lines:
            draw(ax, line, marker="" if log else "o")
        ax.set_xlabel(x)
        ax.set_ylabel(y)
        if log:
            ax.set_yscale("symlog", linthresh=1e-3)
        else:
            ax.set_ylim(-0.02, 1.02)
        return inline(panel)


def draw(ax: Any, line: Line, *, marker: str) -> None:
    """A series in a group of its own, so that the page can hide it."""
    xs, ys = zip(*line.points, strict=True)
    style = {"color": colour(line.style), "gid": f"row-{line.style}"}
    ax.plot(xs, ys, marker=marker, ls=dash(line.style), lw=1.4, ms=3, **style)
    if any(line.error):
        low, high = (
            [y + sign * e for y, e in zip(ys, line.error, strict=True)] for sign in (-1, 1)
        )
        ax.fill_between(xs, low, high, alpha=0.18, lw=0, **style)


def inline(panel: Any) -> str:
    """The SVG element alone: no XML header, date or size in points, and groups by series."""
    buffer = io.StringIO()
    panel.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="row-(\d+)"', r' data-row="\1"', svg)
    svg = re.sub(r' id="[a-zA-Z0-9.]+_\d+"', "", svg)
    svg = re.sub(r"font-family: [^;\"]+;? ?", "", svg)  # the page's own
    svg = re.sub(r"\n\s*", "\n", svg)
    svg = re.sub(r"(\d+\.\d\d)\d+", r"\1", svg)  # a hundredth of a point is enough
    return re.sub(r'(<svg [^>]*?) width="[^"]*"| height="[^"]*pt"', r"\1", svg, count=2)
