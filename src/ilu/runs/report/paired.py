"""Paired exact tests of models on the same questions, with Holm's correction."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ilu.evals.statistics import holm, sign_test
from ilu.runs.report.table import Row
from ilu.runs.results.forget_metric import OTHERS, UTILITY, metric_record
from ilu.runs.results.run_metrics import Measured, forgotten, prompting_attacks, score
from ilu.runs.run_dir import PROBES


class Difference(NamedTuple):
    """Mean difference of a row to the best one, the numbers of questions won and lost, and p."""

    value: float
    wins: int
    losses: int
    p: float


class Comparison(NamedTuple):
    """One measure: the best row, and the difference of every row with the same questions."""

    title: str
    best: str
    rows: Mapping[str, Difference]


class Measure(NamedTuple):
    """A stored metric at a stage; None is the metric that measures forgetting in each run."""

    title: str
    stage: str
    metric: str | None

    def items(self, m: Measured) -> tuple[float | None, ...]:
        """Value of each question; more is better."""
        utility = self.metric == UTILITY
        values = score(m, self.stage, UTILITY) if utility else forgotten(m, self.stage, self.metric)
        return values.items if values else ()

    def questions(self, m: Measured) -> Any:
        """The recorded questions of the measure."""
        if self.stage == PROBES:
            return m.recipe.get("probes")
        attack = m.recipe["attacks"].get(self.stage.removesuffix("-end"), {})
        metric = self.metric or m.forget
        records = {**m.recipe["metrics"], **attack.get("goals", {})}
        return metric_record(records, metric) if metric else None


def comparisons(rows: Sequence[Row], against: str | None = None) -> list[Comparison]:
    """Compare every row with one row, measure by measure.

    ``against`` left out: the best row of each measure that can be best, among the largest number
    of rows with the same questions.
    """
    attacks = dict.fromkeys(a for r in rows for a in r.first.attacks)
    probes = dict.fromkeys(p for r in rows for p in prompting_attacks(r.first))
    measures = [
        Measure("forgotten after unlearning", "after", None),
        Measure("utility", "after", UTILITY),
        *(Measure(f"forgotten after {a}", f"{a}-end", attack_metric(rows, a)) for a in attacks),
        *(Measure(f"forgotten after {p}", PROBES, p) for p in probes),
    ]
    found = [compare(measure, rows, against) for measure in measures]
    return [each for each in found if each]


def attack_metric(rows: Sequence[Row], attack: str) -> str | None:
    """The metric after an attack: on questions outside its training data where it has some."""
    relearning = any(score(r.first, f"{attack}-end", OTHERS) for r in rows)
    return OTHERS if relearning else None


def compare(measure: Measure, rows: Sequence[Row], against: str | None) -> Comparison | None:
    """One measure of all rows; None if no two rows can be compared."""
    rows = rows if against else with_same_questions(measure, rows)
    means = {
        i: sum(map(mean_known, seeds.values())) / len(seeds)
        for i, r in enumerate(rows)
        if (r.label == against if against else r.eligible) and (seeds := by_seed(measure, r))
    }
    if not means:
        return None
    best = rows[max(means, key=means.__getitem__)]
    tried = {r.label: test(measure, r, best) for r in rows if r is not best}
    found = {label: each for label, each in tried.items() if each}
    adjusted = holm([each.p for each in found.values()])
    corrected = {k: d._replace(p=p) for (k, d), p in zip(found.items(), adjusted, strict=True)}
    return Comparison(measure.title, best.label, corrected) if found else None


def with_same_questions(measure: Measure, rows: Sequence[Row]) -> list[Row]:
    """The largest group of rows with the same questions; the first of equals."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if by_seed(measure, row):
            key = json.dumps(measure.questions(row.first), sort_keys=True)
            groups.setdefault(key, []).append(row)
    return max(groups.values(), key=len, default=[])


def test(measure: Measure, row: Row, best: Row) -> Difference | None:
    """One row against the best, on the seeds and questions that both have.

    A question counts once: its value is the sum over seeds, so more seeds are not more questions.
    """
    ours, theirs = by_seed(measure, row), by_seed(measure, best)
    seeds = [seed for seed in ours if seed in theirs]
    same = measure.questions(row.first) == measure.questions(best.first)
    if not seeds or not same or len({len(s[seed]) for s in (ours, theirs) for seed in seeds}) > 1:
        return None
    columns = zip(*(s[seed] for s in (ours, theirs) for seed in seeds), strict=True)
    k = len(seeds)
    gains = [sum(c[:k]) - sum(c[k:]) for c in columns if None not in c]  # pyright: ignore[reportArgumentType]
    wins, losses = sum(g > 0 for g in gains), sum(g < 0 for g in gains)
    value = sum(gains) / (k * len(gains)) if gains else 0.0
    return Difference(value, wins, losses, sign_test(wins, losses))


def by_seed(measure: Measure, row: Row) -> dict[int, tuple[float | None, ...]]:
    """Seed -> value of each question, for runs that stored them."""
    found = {m.recipe["seed"]: measure.items(m) for m in row.runs}
    return {seed: items for seed, items in found.items() if items}


def mean_known(items: Sequence[float | None]) -> float:
    """Mean of the items that could be scored."""
    known = [item for item in items if item is not None]
    return sum(known) / len(known) if known else 0.0
