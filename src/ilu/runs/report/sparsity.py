"""Curves against the share of weights that a mask trains: one line per score that chose them.

Runs with the same score and fraction are averaged; their masks may differ (random ones by seed).
"""

from collections.abc import Iterator, Mapping, Sequence

from ilu.evals.score import mean_score
from ilu.runs.report.figures import Panel, entries
from ilu.runs.report.palette import looks
from ilu.runs.report.svg import Line, figure
from ilu.runs.report.table import Row
from ilu.runs.results.display import COLUMNS
from ilu.runs.results.run_metrics import Measured, headline
from ilu.system.scores import Score

SHOWN = ("forgotten", "utility", "still_forgotten")
FULL = 1.0
"""The fraction of a run without a mask: the last point of every line."""
Curves = dict[str, dict[float, list[Measured]]]
"""Score that chose the weights -> fraction -> runs."""
Numbers = Mapping[str, Score | None]


def mask_figures(rows: Sequence[Row]) -> list[Panel]:
    """Panels of every recipe that was run at two fractions or more; no mask counts as one."""
    recipes: dict[str, list[Measured]] = {}
    for row in rows:
        recipes.setdefault(str(row.first.recipe["name"]), []).extend(row.runs)
    found = {name: by_fraction(runs) for name, runs in recipes.items()}
    scores = sorted({score for each in found.values() for score in each})
    return [panel for name, each in found.items() for panel in panels(name, each, scores)]


def by_fraction(runs: Sequence[Measured]) -> Curves:
    """The runs by score and fraction; runs without a mask are added to every score."""
    found: Curves = {}
    for m in runs:
        if record := m.records.get("mask"):
            line = found.setdefault(str(record["score"]), {})
            line.setdefault(float(record["fraction"]), []).append(m)
    unmasked = [m for m in runs if m.recipe.get("mask") is None]
    ends = {FULL: unmasked} if unmasked else {}
    return {score: {**line, **ends} for score, line in found.items() if len({**line, **ends}) > 1}


def panels(name: str, found: Curves, scores: Sequence[str]) -> Iterator[Panel]:
    """One panel per measure that all runs have; ``scores`` are those of all panels."""
    numbers = {
        s: {f: [headline(m) for m in ms] for f, ms in line.items()} for s, line in found.items()
    }
    styles = {score: i for i, score in enumerate(scores)}
    legend = [each for each in entries(scores) if each.name in found]
    for key in SHOWN:
        every = [line_of(styles[score], key, line) for score, line in numbers.items()]
        if lines := [line for line in every if line]:
            x = "share of the weights that is trained"
            drawn = figure(lines, looks(scores), x=x, y=COLUMNS[key])
            yield Panel(f"{name}: {COLUMNS[key]}", drawn, legend)


def line_of(style: int, key: str, found: Mapping[float, Sequence[Numbers]]) -> Line | None:
    """Means over seeds with standard errors; None if a run lacks the measure."""
    scores = {f: [each.get(key) for each in found[f]] for f in sorted(found)}
    if any(score is None for each in scores.values() for score in each):
        return None
    means = {f: mean_score([score.value for score in each if score]) for f, each in scores.items()}
    points = [(f, mean.value) for f, mean in means.items()]
    return Line(style, points, [mean.stderr for mean in means.values()])
