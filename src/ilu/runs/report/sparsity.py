"""Curves against the share of weights that a mask lets move: one line for each way to choose them.

Masks of one score and fraction are averaged, also where their files differ (random ones by seed).
"""

from collections.abc import Iterator, Mapping, Sequence

from ilu.evals.score import mean_score
from ilu.runs.report.figures import Panel, entry
from ilu.runs.report.svg import Line, figure
from ilu.runs.report.table import COLUMNS, Row
from ilu.runs.results.run_metrics import Measured, headline
from ilu.types import Score

SHOWN = ("forget_quality", "utility", "robust_accuracy")
FULL = 1.0
"""The fraction of a model without a mask, which every line leads to."""
Curves = dict[str, dict[float, list[Measured]]]
"""Score that chose the weights -> fraction -> runs."""
Numbers = Mapping[str, Score | None]


def mask_figures(rows: Sequence[Row]) -> list[Panel]:
    """Per recipe that was run at two fractions or more, all weights among them: FQ, utility, RA."""
    recipes: dict[str, list[Measured]] = {}
    for row in rows:
        recipes.setdefault(str(row.first.recipe["name"]), []).extend(row.runs)
    found = {name: by_fraction(runs) for name, runs in recipes.items()}
    scores = sorted({score for each in found.values() for score in each})
    styles = {score: i for i, score in enumerate(scores)}
    return [panel for name, each in found.items() for panel in panels(name, each, styles)]


def by_fraction(runs: Sequence[Measured]) -> Curves:
    """The runs by score and fraction; one without a mask is the end of every line."""
    found: Curves = {}
    for m in runs:
        if record := m.records.get("mask"):
            line = found.setdefault(str(record["score"]), {})
            line.setdefault(float(record["fraction"]), []).append(m)
    whole = [m for m in runs if m.recipe.get("mask") is None]
    ends = {FULL: whole} if whole else {}
    return {score: {**line, **ends} for score, line in found.items() if len({**line, **ends}) > 1}


def panels(name: str, found: Curves, styles: Mapping[str, int]) -> Iterator[Panel]:
    """A panel for each measure that the runs have."""
    numbers = {
        s: {f: [headline(m) for m in ms] for f, ms in line.items()} for s, line in found.items()
    }
    legend = [entry(score, styles[score]) for score in found]
    for key in SHOWN:
        every = [line_of(styles[score], key, line) for score, line in numbers.items()]
        if lines := [line for line in every if line]:
            drawn = figure(lines, x="share of the weights that moves", y=COLUMNS[key])
            yield Panel(f"{name}: {COLUMNS[key]}", drawn, legend)


def line_of(style: int, key: str, found: Mapping[float, Sequence[Numbers]]) -> Line | None:
    """Means over seeds with their standard errors; None where a run lacks the measure."""
    scores = {f: [each.get(key) for each in found[f]] for f in sorted(found)}
    if any(score is None for each in scores.values() for score in each):
        return None
    means = {f: mean_score([score.value for score in each if score]) for f, each in scores.items()}
    points = [(f, mean.value) for f, mean in means.items()]
    return Line(style, points, [mean.stderr for mean in means.values()])
