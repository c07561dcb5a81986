"""Curves of the report: forget quality while fine-tuning, and the objective while unlearning."""

from collections.abc import Mapping, Sequence

from ilu.attacks.finetune import stages_by_step
from ilu.measures import SHARES, Measured, curve, relearning
from ilu.plots import Line, figure
from ilu.report.cells import Broken
from ilu.report.panels import Entry, Panel, entry
from ilu.report.rows import Row, Table
from ilu.scores import mean_score

HIDDEN = {"step", "lr", "grad_norm"}
"""Columns of train.jsonl that are not terms of the objective."""
POINTS = 80
"""Points of a training curve: more cannot be seen in a panel of this width."""


def legend(table: Table) -> list[Entry]:
    """The rows of the table as they look in every figure."""
    return [entry(row.label, i) for i, row in enumerate(table.rows)]


def quality_figures(rows: Sequence[Row]) -> list[Panel]:
    """Per fine-tuning, forget quality of each row by step."""
    panels: dict[str, list[Line]] = {}
    known = all(tuning_steps(r.first, a) for r in rows for a in r.first.attacks)
    for style, row in enumerate(rows):
        shown = relearning(row.first)
        for attack in (a for a in row.first.attacks if a not in shown):
            if line := quality_line(row, attack, style, steps=known):
                panels.setdefault(attack, []).append(line)
    x = "step" if known else "share of the steps"
    return [Panel(a, figure(lines, x=x, y="forget quality")) for a, lines in panels.items()]


def quality_line(row: Row, attack: str, style: int, *, steps: bool) -> Line | None:
    """Mean over seeds, with the standard error over seeds as its band."""
    curves = [found for m in row.runs if (found := curve(m, attack))]
    if not curves:
        return None
    points = [mean_score([s.value for s in column]) for column in zip(*curves, strict=True)]
    xs = tuning_steps(row.first, attack) if steps else SHARES
    return Line(
        style,
        [(x, point.value) for x, point in zip(xs, points, strict=True)],
        [point.stderr for point in points],
    )


def tuning_steps(m: Measured, attack: str) -> list[float]:
    """The steps at which an attack was measured, if its record says how many there were."""
    total = m.recipe["attacks"][attack].get("optim", {}).get("steps")
    if not isinstance(total, int):
        return []
    return [0.0, *(float(step) for step, names in stages_by_step(total).items() for _ in names)]


def training_figures(rows: Sequence[Row], broken: Sequence[Broken]) -> list[Panel]:
    """Per row its first run, and every run under way: the value of each term by step."""
    logs = [(row.label, row.first.training) for row in rows]
    logs += [(f"{each.place.name}, not finished", each.training) for each in broken]
    return [training_figure(name, log) for name, log in logs if log and terms(log)]


def training_figure(name: str, log: Sequence[Mapping[str, float]]) -> Panel:
    """One run's terms."""
    every = -(-len(log) // POINTS)
    kept = log[::every]
    lines = [
        Line(i, [(row["step"], row[term]) for row in kept if term in row])
        for i, term in enumerate(terms(log))
    ]
    entries = [entry(term, i) for i, term in enumerate(terms(log))]
    return Panel(name, figure(lines, x="step", y="value", log=True), entries)


def terms(log: Sequence[Mapping[str, float]]) -> list[str]:
    """Terms of the objective that were logged."""
    return [key for key in log[0] if key not in HIDDEN]
