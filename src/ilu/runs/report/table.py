"""The table that every format shows: one row per recipe, means over seeds, with standard errors."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ilu.evals.score import mean_score
from ilu.evals.statistics import Interval, Z, overlap, student, wilson
from ilu.runs.report.escape import printable
from ilu.runs.report.evidence import no_forgetting, questions_agree
from ilu.runs.report.names import known_row, titles
from ilu.runs.results.display import COLUMNS, FORGOTTEN
from ilu.runs.results.forget_metric import PICKS, UTILITY
from ilu.runs.results.run_metrics import (
    USABLE,
    Measured,
    gap,
    headline,
    worst_case,
    worst_usable_case,
)
from ilu.system.scores import Score

GAP = "gap"
"""Column of the gap to the reference model; 0 is best for a never-knew one, so none is marked."""
DAMAGE = -0.05
"""A model is damaged if the 95 % interval of its change of utility is entirely below this."""


class Cell(NamedTuple):
    """A number with its standard error and 95 % interval: over items, or over several seeds."""

    value: float
    stderr: float
    low: float
    high: float
    n: int
    seeds: int
    note: str = ""

    @property
    def interval(self) -> Interval:
        """Both ends of the 95 % interval."""
        return self.low, self.high


class Row(NamedTuple):
    """All runs of one recipe; they differ in their seed only."""

    label: str
    runs: tuple[Measured, ...]
    cells: Mapping[str, Cell]
    no_forgetting: str = ""
    """Why its questions show no forgetting; empty where they do, or where that is unknown."""

    @property
    def baseline(self) -> bool:
        """Whether the run unlearned nothing."""
        return not self.runs[0].recipe["objective"]

    @property
    def damaged(self) -> bool:
        """Whether utility fell by more than ``DAMAGE``: such a model also forgets."""
        change = self.cells.get("utility_change")
        return change is not None and change.high < DAMAGE

    @property
    def eligible(self) -> bool:
        """Whether its values can be marked as best."""
        return not (self.baseline or self.damaged or self.no_forgetting)

    @property
    def first(self) -> Measured:
        """The run whose records represent the row."""
        return self.runs[0]

    @property
    def n(self) -> int:
        """Number of items of the first number."""
        return next((found.n for found in self.cells.values()), 0)

    def over(self, what: Callable[[Measured], Score | None]) -> Cell | None:
        """A measure of every run, as one cell."""
        return cell([what(m) for m in self.runs])


class Table(NamedTuple):
    """Rows, columns with at least one value, and column -> label of the row marked best.

    ``against``: label of the row that all others are compared with, instead of the best.
    """

    columns: Mapping[str, str]
    rows: Sequence[Row]
    best: Mapping[str, str]
    against: str | None = None


def make_table(
    runs: Sequence[Measured], against: str | None = None, usable: float = USABLE
) -> Table:
    """Group finished runs into rows."""
    if not 0 <= usable <= 1:
        raise ValueError(f"`usable` {usable:g}: it must be from 0 to 1")
    groups = grouped(runs)
    rows = [row(label, group, usable) for label, group in zip(titles(groups), groups, strict=True)]
    rows.sort(key=lambda each: not each.baseline)
    found = dict.fromkeys(key for row in rows for key in row.cells)
    columns = {key: name for key, name in COLUMNS.items() if key in found}
    if "worst_usable" in columns and usable != USABLE:
        columns["worst_usable"] += f" (utility at least {usable:g} of the original's)"
    hidden = (*COLUMNS, "utility_change")
    columns |= {key: key for key in found if key not in hidden and PICKS not in key}
    if against is not None:
        against = known_row({each.label: each.first for each in rows}, against)
        rows = with_gaps(rows, against)
        columns |= {GAP: f"gap to {against}"} if any(GAP in each.cells for each in rows) else {}
    marks = {key: best(rows, key) for key in COLUMNS}
    return Table(columns, rows, {key: label for key, label in marks.items() if label}, against)


def with_gaps(rows: Sequence[Row], against: str) -> list[Row]:
    """The rows with their gap to the row ``against`` (``run_metrics.gap``).

    A run is compared with the run of the same seed, or with the only run of that row.
    """
    known = {each.label: each for each in rows}
    never = {m.recipe["seed"]: m for m in known[against].runs}
    only = known[against].first if len(never) == 1 else None
    return [each if each.label == against else with_gap(each, never, only) for each in rows]


def with_gap(row: Row, never: Mapping[int, Measured], only: Measured | None) -> Row:
    """A row with its gap to the runs of another."""
    pairs = [(m, never.get(m.recipe["seed"], only)) for m in row.runs]
    gaps = [gap(m, other) if other else None for m, other in pairs]
    mean = cell([each[1] if each else None for each in gaps])
    if mean is None:
        return row
    note = printable(", ".join(dict.fromkeys(each[0] for each in gaps if each and each[0])))
    return row._replace(cells={**row.cells, GAP: mean._replace(note=note)})


def grouped(runs: Sequence[Measured]) -> list[list[Measured]]:
    """Group runs whose recipes differ in seeds only; a repeated run is not a second seed."""
    groups: dict[tuple[str, int], list[Measured]] = {}
    seen: dict[str, int] = {}
    for m in runs:
        exact = json.dumps(m.recipe, sort_keys=True)
        seen[exact] = seen.get(exact, 0) + 1
        settings = json.dumps(without_seeds(m.recipe), sort_keys=True)
        groups.setdefault((settings, seen[exact]), []).append(m)
    return list(groups.values())


def without_seeds(record: Any) -> Any:
    """A record without seeds and without empty fields, which older records lack."""
    if isinstance(record, Mapping):
        kept = {k: v for k, v in record.items() if k != "seed" and v not in (None, {}, [])}
        return {k: without_seeds(v) for k, v in kept.items()}
    return [without_seeds(v) for v in record] if isinstance(record, list) else record


def row(label: str, runs: Sequence[Measured], usable: float = USABLE) -> Row:
    """Average the measures of the runs of one recipe."""
    measures = [{**headline(m, usable), **other_metrics(m)} for m in runs]
    cells = {key: cell([each.get(key) for each in measures], key) for key in measures[0]}
    worst = {
        "worst_case": [worst_case(m) for m in runs],
        "worst_usable": [worst_usable_case(m, usable) for m in runs],
    }
    for key, found in worst.items():
        if (known := cells.get(key)) is not None:
            attacks = dict.fromkeys(each[0] for each in found if each)
            cells[key] = known._replace(note=printable(", ".join(attacks)))
    shown = {key: each for key, each in cells.items() if each}
    unlearned = runs[0].recipe["objective"]
    return Row(label, tuple(runs), shown, no_forgetting(runs) if unlearned else "")


def other_metrics(m: Measured) -> dict[str, Score]:
    """Metrics that are not in the headline, before and after unlearning.

    A run that unlearned nothing has the same values twice, so only one of them is returned.
    """
    stages = {"before": " before"} if m.recipe["objective"] else {}
    headline = (UTILITY, FORGOTTEN if m.forget else None)
    return {
        printable(f"{metric}{ending}"): score
        for stage, ending in {**stages, "after": ""}.items()
        for metric, score in m.displayed(stage).items()
        if metric not in headline
    }


def cell(scores: Sequence[Score | None], key: str = "") -> Cell | None:
    """The mean over one score per seed; None if a seed lacks it.

    The interval over seeds is widened to the mean interval over items where it is narrower.
    """
    known = [s for s in scores if s]
    if not known or len(known) < len(scores):
        return None
    if len(known) == 1:
        (one,) = known
        return Cell(one.value, one.stderr, *item_interval(one), one.n, 1)
    mean = mean_score([s.value for s in known])
    half = student(len(known) - 1) * mean.stderr
    lows, highs = zip(*map(item_interval, known), strict=True)
    low = min(mean.value - half, sum(lows) / len(known))
    high = max(mean.value + half, sum(highs) / len(known))
    if key in COLUMNS:  # shares lie between 0 and 1
        low, high = max(0.0, low), min(1.0, high)
    return Cell(mean.value, mean.stderr, low, high, known[0].n, len(known))


def item_interval(score: Score) -> Interval:
    """95 % interval over items: Wilson's for a share of right answers, normal otherwise."""
    p, n = score.value, score.n
    share = 0 <= p <= 1 and n > 1
    if share and abs(score.stderr**2 * (n - 1) - p * (1 - p)) < 1e-9:
        return wilson(p, n)
    return p - Z * score.stderr, p + Z * score.stderr


def best(rows: Sequence[Row], key: str) -> str | None:
    """The row with the highest value, if its 95 % interval overlaps no other one.

    Baselines and damaged models are excluded. None if the rows use different questions, or if that
    row shows no forgetting.
    """
    ranked = {r.label: r for r in rows if key in r.cells and not (r.baseline or r.damaged)}
    if len(ranked) < 2 or not questions_agree([r.first for r in ranked.values()], key):
        return None
    cells = {label: r.cells[key] for label, r in ranked.items()}
    first = max(cells, key=lambda label: cells[label].value)
    rest = [c for label, c in cells.items() if label != first]
    clear = not any(overlap(cells[first].interval, c.interval) for c in rest)
    return first if clear and ranked[first].eligible else None
