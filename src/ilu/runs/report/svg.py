"""Figures of the report as inline SVG: the same bytes for the same numbers, without scripts.

Names of models and loss terms are untrusted text: the page escapes them, figures never have them.
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
"""Grey on transparent: readable on light and dark pages."""
COLOURS = (
    "#3b82c4", "#e07b39", "#3f9e5a", "#c94f4f", "#8d6cc4",
    "#a0745a", "#d36fae", "#7a7f85", "#a8a02c", "#2fa7b5",
)  # fmt: skip
DASHES = ("-", "--", ":")

Point = tuple[float, float]


class Line(NamedTuple):
    """Points of one series; ``style`` is its legend index, ``error`` half of its band."""

    style: int
    points: Sequence[Point]
    error: Sequence[float] = ()


def colour(style: int) -> str:
    """Colour of a series."""
    return COLOURS[style % len(COLOURS)]


def dash(style: int) -> str:
    """Line style of a series, which differs between series of the same colour."""
    return DASHES[style // len(COLOURS) % len(DASHES)]


def figure(lines: Sequence[Line], *, x: str, y: str, log: bool = False) -> str:
    """One small panel: values from 0 to 1, or any values on a log scale with ``log``."""
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
    """Draw a series in its own group, so that the page can hide it."""
    xs, ys = zip(*line.points, strict=True)
    style = {"color": colour(line.style), "gid": f"row-{line.style}"}
    ax.plot(xs, ys, marker=marker, ls=dash(line.style), lw=1.4, ms=3, **style)
    if any(line.error):
        low, high = (
            [y + sign * e for y, e in zip(ys, line.error, strict=True)] for sign in (-1, 1)
        )
        ax.fill_between(xs, low, high, alpha=0.18, lw=0, **style)


def inline(panel: Any) -> str:
    """The SVG element without XML header, date and size in points; groups have ``data-row``."""
    buffer = io.StringIO()
    panel.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="row-(\d+)"', r' data-row="\1"', svg)
    svg = re.sub(r' id="[a-zA-Z0-9.]+_\d+"', "", svg)
    svg = re.sub(r"font-family: [^;\"]+;? ?", "", svg)  # the page sets it
    svg = re.sub(r"\n\s*", "\n", svg)
    svg = re.sub(r"(\d+\.\d\d)\d+", r"\1", svg)  # keep a hundredth of a point
    return re.sub(r'(<svg [^>]*?) width="[^"]*"| height="[^"]*pt"', r"\1", svg, count=2)


def landscape_svg(record: Any, metric: str) -> str:
    """A recorded landscape: a curve on a line, filled contours on a plane."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    xs = [float(x) for x in record["axes"][0]["steps"]]
    values = [float(p["scores"][metric]["value"]) for p in record["points"]]
    with rc_context(STYLE):
        panel = Figure(figsize=(3.4, 2.6), layout="constrained")
        FigureCanvasSVG(panel)
        ax = panel.subplots()
        if len(record["axes"]) == 1:
            ax.plot(xs, values, marker="o", ms=3, lw=1.4, color=colour(0))
        else:
            width = len(record["axes"][1]["steps"])
            rows = [values[i : i + width] for i in range(0, len(values), width)]
            contours(panel, ax, xs, [float(y) for y in record["axes"][1]["steps"]], rows)
        mark_models(ax, record["models"], bool(len(record["axes"]) - 1))
        return inline(panel)


def contours(
    panel: Any, ax: Any, xs: Sequence[float], ys: Sequence[float], rows: Sequence[Sequence[float]]
) -> None:
    """Filled contours of a plane; ``rows`` has one list per x with a value for each y."""
    drawn = ax.contourf(xs, ys, list(zip(*rows, strict=True)), levels=10, cmap="viridis")
    panel.colorbar(drawn, ax=ax)


def mark_models(ax: Any, models: Any, plane: bool) -> None:
    """Mark every model by its first letter; on a plane also by a cross."""
    for name, at in models.items():
        letter = str(name)[:1].upper() if name in ("unlearned", "original", "finetuned") else "?"
        if plane:
            ax.plot(at[0], at[1], marker="x", color="#c94f4f")
            ax.annotate(letter, (at[0], at[1]), xytext=(4, 4), textcoords="offset points",
                        color="#c94f4f")  # fmt: skip
        else:
            ax.axvline(at[0], color="#808080", lw=0.8, ls=":")
            ax.annotate(letter, (at[0], 1), xycoords=("data", "axes fraction"))
