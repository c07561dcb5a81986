"""Masks on the terminal: how one was made, where it is dense, how far two agree."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from ilu.cli.terminal import console, number, table
from ilu.methods.masks.statistics import (
    Overlap,
    by_block,
    by_module,
    counts,
    density,
    in_order,
    overlaps,
    total,
)
from ilu.methods.masks.storage import MaskFile
from ilu.models.weight_names import OUTSIDE

BARS = " ▁▂▃▄▅▆▇█"
SHADES = " ░▒▓█"
"""Densities from 0 to the largest."""


def show_mask(mask: MaskFile) -> None:
    """How a mask was made, and a heat map of its density: modules down, blocks across."""
    found, record = counts(mask), mask.record
    all_of_it = total(found.values())
    console.print(
        f"{mask.path}: {all_of_it.moving} of {all_of_it.total} weights may move "
        f"({all_of_it.density:.2%})",
        markup=False,
        soft_wrap=True,
    )
    for line in made(record):
        console.print(line, markup=False)
    heat_map(density(found))
    rows = [
        ("outside" if block == OUTSIDE else block, str(c.moving), str(c.total), number(c.density))
        for block, c in by_block(found).items()
    ]
    table("by block", ("block", "may move", "weights", "density"), rows)


def made(record: Mapping[str, Any]) -> list[str]:
    """How a mask was made, a line for each thing known."""
    lines: list[str] = []
    scoring = record.get("scoring")
    if scoring:
        score = {k: v for k, v in scoring["score"].items() if k != "type"}
        lines.append(f"score: {scoring['score']['type'].rpartition(':')[2]} {score or ''}".rstrip())
    if record.get("converted"):
        lines.append(f"converted from {record['converted']}")
    if record.get("scales"):
        scales = record["scales"]
        lines.append(
            f"mean size of theta {scales['theta']:.3g}, of g_r/mu {scales['retain']:.3g}, "
            f"mu {scales['mu']:.3g}"
        )
    if record.get("scores"):
        quantiles = record["scores"]["quantiles"].items()
        sizes = "  ".join(f"{float(q):.0%} {x:.3g}" for q, x in quantiles)
        lines.append(f"sizes of scores: {sizes}  (0: {record['scores']['zero']})")
        lines.append(bars(record["scores"]["octaves"]))
    if not record:
        lines.append("no record of how it was made, or for which model")
    return lines


def bars(octaves: Mapping[str, int]) -> str:
    """How many scores have each power of 2 as size, as bars from the smallest to the largest."""
    if not octaves:
        return "no score is above 0"
    low, high = min(map(int, octaves)), max(map(int, octaves))
    counts = [octaves.get(str(e), 0) for e in range(low, high + 1)]
    shown = "".join(BARS[-(-8 * n // max(counts))] for n in counts)
    return f"sizes from 2^{low} to 2^{high}: {shown}"


def heat_map(densities: Mapping[str, Mapping[str, float]]) -> None:
    """Shaded cells with the density of each module over all its blocks."""
    blocks = sorted({b for row in densities.values() for b in row}, key=in_order)
    most = max((x for row in densities.values() for x in row.values()), default=0.0)
    shown = Table(
        title=f"density by module and block; the darkest is {most:.3f}", title_justify="left"
    )
    shown.add_column("module")
    inside = [b for b in blocks if b != OUTSIDE]
    shown.add_column(f"blocks {inside[0]} to {inside[-1]}, outside" if inside else "outside")
    shown.add_column("mean", justify="right")
    for module, row in densities.items():
        cells = "".join(shade(row.get(b), most) for b in blocks)
        shown.add_row(module, Text(cells), number(sum(row.values()) / len(row)))
    console.print(shown)


def shade(x: float | None, most: float) -> str:
    """Two characters for a density; dots where there is no such weight."""
    if x is None:
        return "··"
    step = 0 if x == 0 else 1 + min(3, int(4 * x / most))
    return SHADES[step] * 2


def show_comparison(a: MaskFile, b: MaskFile) -> None:
    """Overlap by module, with what independent masks of the same densities would have."""
    models = {m for m in (a.record.get("model"), b.record.get("model")) if m}
    if len(models) > 1:
        raise ValueError(f"{a.path} and {b.path} were made for models with different weights")
    rows = [(module, *cells(each)) for module, each in by_module(overlaps(a, b)).items()]
    table(f"{a.path} and {b.path}", ("module", "in both", "in either", "IoU", "by chance"), rows)


def cells(o: Overlap) -> tuple[str, str, str, str]:
    """An overlap as text."""
    return str(o.both), str(o.either), number(o.iou), number(o.chance_iou)
