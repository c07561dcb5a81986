"""Figures of the report as inline SVG: the same bytes for the same numbers, and no script."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

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

Series = Mapping[str, Sequence[tuple[float, float]]]
"""Name of a line -> its points."""


def panels(lines: Mapping[str, Series], *, x: str, y: str, log: bool = False) -> str:
    """One small panel per key of ``lines``, all on the same axes, with one legend."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        columns = min(3, len(lines))
        rows = -(-len(lines) // columns)
        figure = Figure(figsize=(3 * columns, 2.3 * rows + 0.5), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots(rows, columns, sharex=not log, sharey=not log, squeeze=False)
        for ax, (title, series) in zip(axes.flat, lines.items(), strict=False):
            draw(ax, title, series, log=log)
        for ax in axes.flat[len(lines) :]:
            ax.set_visible(False)
        figure.supxlabel(x, fontsize=9)
        figure.supylabel(y, fontsize=9)
        handles, labels = axes.flat[0].get_legend_handles_labels()
        if not log and len(labels) > 1:
            figure.legend(handles, labels, loc="outside upper center", ncols=5, frameon=False)
        return inline(figure)


def draw(ax: Any, title: str, series: Series, *, log: bool) -> None:
    """Lines of one panel; with ``log`` each panel has its own axis and legend."""
    ax.set_title(title, fontsize=9)
    for name, points in series.items():
        ax.plot(*zip(*points, strict=True), label=name, marker="" if log else "o", lw=1.3, ms=3)
    if log:
        ax.set_yscale("symlog", linthresh=1e-3)
        ax.legend(frameon=False, fontsize=7)
    else:
        ax.set_ylim(-0.02, 1.02)


def inline(figure: Any) -> str:
    """The SVG element alone, without XML header, date and size in points."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(
        r'(<svg [^>]*?) width="[^"]*"', r"\1", re.sub(r' height="[^"]*pt"', "", svg, count=1)
    )
