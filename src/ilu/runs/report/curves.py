"""Curves of the report: ``forgotten`` during fine-tuning, and loss terms during unlearning."""

from collections.abc import Mapping, Sequence

from ilu.evals.score import mean_score
from ilu.runs.report.figures import Entry, Panel, entries
from ilu.runs.report.gather import Broken
from ilu.runs.report.palette import looks
from ilu.runs.report.svg import Line, figure
from ilu.runs.report.table import Row, Table
from ilu.runs.results.display import FORGOTTEN
from ilu.runs.results.run_metrics import (
    SHARES,
    Measured,
    after_relearning,
    curve,
    dense_curve,
    guessing,
    numbers,
)
from ilu.runs.run_dir import DISTILLED, NOT_TERMS, VALIDATION
from ilu.system.scores import stages_by_step

POINTS = 80
"""Points of a training curve; more are not visible at the width of a panel."""


def legend(table: Table) -> list[Entry]:
    """The look of every row, the same in all figures."""
    return entries([row.label for row in table.rows])


def forgotten_figures(rows: Sequence[Row]) -> list[Panel]:
    """One panel per fine-tuning: ``forgotten`` of each row by step, and guessing."""
    panels: list[Panel] = []
    styles = looks([row.label for row in rows])
    for attack in dict.fromkeys(a for r in rows for a in r.first.attacks):
        having = [(i, r) for i, r in enumerate(rows) if attack not in after_relearning(r.first)]
        steps = all(tuning_steps(r.first, attack) for _, r in having if curve(r.first, attack))
        drawn = [forgotten_line(r, attack, style, steps=steps) for style, r in having]
        if lines := [line for line in drawn if line]:
            x = "step" if steps else "share of the steps"
            guess = guessed([r for _, r in having])
            svg = figure(lines, styles, x=x, y=FORGOTTEN, guessing=guess)
            panels.append(Panel(attack, svg))
    return panels


def guessed(rows: Sequence[Row]) -> float | None:
    """``forgotten`` of guessing; None where it is unknown, or differs between rows."""
    found = {None if (c := guessing(row.first)) is None else round(1 - c, 6) for row in rows}
    return found.pop() if len(found) == 1 else None


def forgotten_line(row: Row, attack: str, style: int, *, steps: bool) -> Line | None:
    """Mean over seeds; the band is the standard error over seeds."""
    seeds = [by_step(m, attack) if steps else by_share(m, attack) for m in row.runs]
    seeds = [each for each in seeds if each]
    if not seeds:
        return None
    shared = [x for x in seeds[0] if all(x in each for each in seeds)]
    points = [mean_score([each[x] for each in seeds]) for x in shared]
    return Line(
        style,
        [(x, point.value) for x, point in zip(shared, points, strict=True)],
        [point.stderr for point in points],
    )


def by_share(m: Measured, attack: str) -> dict[float, float]:
    """Share of an attack's steps that is done -> forgotten."""
    found = curve(m, attack)
    return {x: s.value for x, s in zip(SHARES, found, strict=True)} if found else {}


def by_step(m: Measured, attack: str) -> dict[float, float]:
    """Step of an attack -> forgotten, at every measurement."""
    dense: dict[float, float] = {
        float(step): value for step, value in dense_curve(m, attack).items()
    }
    stages = zip(tuning_steps(m, attack), curve(m, attack), strict=False)
    return dense or {x: s.value for x, s in stages}


def tuning_steps(m: Measured, attack: str) -> list[float]:
    """The steps at which an attack was measured; empty if their number was not recorded."""
    if dense := dense_curve(m, attack):
        return [float(step) for step in dense]
    total = m.recipe["attacks"].get(attack, {}).get("optim", {}).get("steps")
    if not isinstance(total, int):
        return []
    return [0.0, *(float(step) for step, names in stages_by_step(total).items() for _ in names)]


def training_figures(rows: Sequence[Row], broken: Sequence[Broken]) -> list[Panel]:
    """The value of each loss term by step: first run of every row, and unfinished runs."""
    logs = [(row.label, row.first.training) for row in rows]
    logs += [(f"{each.place.name}, not finished", each.training) for each in broken]
    panels = [training_figure(name, log) for name, log in logs if log and terms(log)]
    distilled = [(row.label, numbers(row.first.run.rows(DISTILLED))) for row in rows]
    panels += [training_figure(f"{n}, distillation", log) for n, log in distilled if log]
    measured = [(row.label, row.first.run.rows(VALIDATION)) for row in rows]
    return panels + [validation_figure(name, log) for name, log in measured if log]


def validation_figure(name: str, log: Sequence[Mapping[str, float]]) -> Panel:
    """The shares of the validation data that are forgotten and kept by step."""
    shares = [key for key in ("forgotten", "kept") if key in log[0]]
    lines = [Line(i, [(row["step"], row[key]) for row in log]) for i, key in enumerate(shares)]
    legend = entries(shares, marked=False)
    svg = figure(lines, looks(shares), x="step", y="share")
    return Panel(f"{name}, validation data", svg, legend)


def training_figure(name: str, log: Sequence[Mapping[str, float]]) -> Panel:
    """The loss terms of one run."""
    every = -(-len(log) // POINTS)
    kept = log[::every]
    lines = [
        Line(i, [(row["step"], row[term]) for row in kept if term in row])
        for i, term in enumerate(terms(log))
    ]
    legend = entries(terms(log), marked=False)
    return Panel(name, figure(lines, looks(terms(log)), x="step", y="value", log=True), legend)


def terms(log: Sequence[Mapping[str, float]]) -> list[str]:
    """Logged terms of the objective."""
    return [key for key in log[0] if key not in NOT_TERMS]
