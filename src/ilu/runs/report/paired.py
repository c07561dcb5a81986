"""Are two defences different on the same questions? Exact tests, corrected for their number."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ilu.evals.statistics import holm, sign_test
from ilu.runs.report.table import Row
from ilu.runs.results.forget_metric import OTHERS, UTILITY, asked
from ilu.runs.results.run_metrics import Measured, probed, quality, score
from ilu.runs.run_dir import PROBES


class Difference(NamedTuple):
    """What a row has more than the best one, on how many questions it wins and loses, and p."""

    value: float
    wins: int
    losses: int
    p: float


class Comparison(NamedTuple):
    """One measure: the best row, and label -> difference for the rows with the same questions."""

    title: str
    best: str
    rows: Mapping[str, Difference]


class Measure(NamedTuple):
    """A metric at a stage; None is the one that means forgetting, whatever a run calls it."""

    title: str
    stage: str
    metric: str | None

    def items(self, m: Measured) -> tuple[float | None, ...]:
        """Value of each question, more is better."""
        utility = self.metric == UTILITY
        found = score(m, self.stage, UTILITY) if utility else quality(m, self.stage, self.metric)
        return found.items if found else ()

    def questions(self, m: Measured) -> Any:
        """What was asked, as the recipe records it."""
        if self.stage == PROBES:
            return m.recipe.get("probes")
        attack = m.recipe["attacks"].get(self.stage.removesuffix("-end"), {})
        metric = self.metric or m.forget
        return asked({**m.recipe["metrics"], **attack.get("goals", {})}, metric) if metric else None


def comparisons(rows: Sequence[Row], against: str | None = None) -> list[Comparison]:
    """Every row against one of them, measure by measure.

    Left out, that one is the best of those that unlearned something and kept their utility.
    """
    attacks = dict.fromkeys(a for r in rows for a in r.first.attacks)
    probes = dict.fromkeys(p for r in rows for p in probed(r.first))
    measures = [
        Measure("FQ after unlearning", "after", None),
        Measure("utility", "after", UTILITY),
        *(Measure(f"FQ after {a}", f"{a}-end", metric_of(rows, a)) for a in attacks),
        *(Measure(f"FQ after {p}", PROBES, p) for p in probes),
    ]
    found = [compare(measure, rows, against) for measure in measures]
    return [each for each in found if each]


def metric_of(rows: Sequence[Row], attack: str) -> str | None:
    """What tells of an attack: the questions about what it has not shown, where there are some."""
    shows = any(score(r.first, f"{attack}-end", OTHERS) for r in rows)
    return OTHERS if shows else None


def compare(measure: Measure, rows: Sequence[Row], against: str | None) -> Comparison | None:
    """One measure of all rows; nothing if no two rows can be compared."""
    means = {
        i: sum(map(mean_known, seeds.values())) / len(seeds)
        for i, r in enumerate(rows)
        if (r.label == against if against else r.defends) and (seeds := by_seed(measure, r))
    }
    if not means:
        return None
    best = rows[max(means, key=means.__getitem__)]
    tried = {r.label: test(measure, r, best) for r in rows if r is not best}
    found = {label: each for label, each in tried.items() if each}
    adjusted = holm([each.p for each in found.values()])
    corrected = {k: d._replace(p=p) for (k, d), p in zip(found.items(), adjusted, strict=True)}
    return Comparison(measure.title, best.label, corrected) if found else None


def test(measure: Measure, row: Row, best: Row) -> Difference | None:
    """One row against the best, on the seeds and the questions that both have.

    A question counts once, by how often each was right over the seeds: several seeds are not more
    questions.
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
    """Seed -> value of each question, for runs that kept them."""
    found = {m.recipe["seed"]: measure.items(m) for m in row.runs}
    return {seed: items for seed, items in found.items() if items}


def mean_known(items: Sequence[float | None]) -> float:
    """Mean of the items that could be scored."""
    known = [item for item in items if item is not None]
    return sum(known) / len(known) if known else 0.0
