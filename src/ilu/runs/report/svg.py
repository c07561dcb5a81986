"""Figures of the report as inline SVG: the same bytes for the same numbers, without scripts.

Names of models and loss terms are untrusted text: the page escapes them, figures never have them.
"""

import io
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from ilu.runs.report.palette import GUESSING, HUES, Look

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
MARK = HUES[3]
"""Colour of the models in a landscape."""

Point = tuple[float, float]


class Line(NamedTuple):
    """Points of one series; ``style`` is its index in the legend, ``error`` half of its band."""

    style: int
    points: Sequence[Point]
    error: Sequence[float] = ()


def figure(
    lines: Sequence[Line],
    looks: Sequence[Look],
    *,
    x: str,
    y: str,
    log: bool = False,
    guessing: float | None = None,
) -> str:
    """One small panel: values from 0 to 1, or any values on a log scale with ``log``.

    ``looks`` are those of the legend; ``guessing`` adds a line at that value.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        panel = Figure(figsize=(3.4, 2.3), layout="constrained")
        FigureCanvasSVG(panel)
        ax = panel.subplots()
        if guessing is not None:
            draw_guessing(ax, guessing)
        for line in lines:
            draw(ax, line, looks[line.style], marked=not log)
        ax.set_xlabel(x)
        ax.set_ylabel(y)
        if log:
            ax.set_yscale("symlog", linthresh=1e-3)
        else:
            ax.set_ylim(-0.02, 1.02)
        return inline(panel)


def draw_guessing(ax: Any, value: float) -> None:
    """A line over the whole width at the value that guessing gives."""
    ax.axhline(value, color=GUESSING.colour, ls=GUESSING.dash, lw=1.3)


def draw(ax: Any, line: Line, look: Look, *, marked: bool) -> None:
    """Draw a series in its own group, so that the page can hide it."""
    xs, ys = zip(*line.points, strict=True)
    style = {"color": look.colour, "gid": f"row-{line.style}"}
    marker = look.marker if marked else ""
    ax.plot(xs, ys, marker=marker, ls=look.dash, lw=1.4, ms=3, **style)
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
            ax.plot(xs, values, marker="o", ms=3, lw=1.4, color=HUES[0])
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
            ax.plot(at[0], at[1], marker="x", color=MARK)
            ax.annotate(letter, (at[0], at[1]), xytext=(4, 4), textcoords="offset points",
                        color=MARK)  # fmt: skip
        else:
            ax.axvline(at[0], color=GUESSING.colour, lw=0.8, ls=":")
            ax.annotate(letter, (at[0], 1), xycoords=("data", "axes fraction"))
