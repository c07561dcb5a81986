"""Three main numbers of a model with their intervals, and cautions about them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ilu.runs.report.table import Cell, Row
from ilu.runs.results.run_metrics import forgotten_at_end

TILES = {
    "forgotten": "forgotten after unlearning",
    "worst_case": "forgotten after the worst attack",
    "utility_change": "change of utility",
}
FEW_ITEMS, FEW_SEEDS = 100, 3


class Verdict(NamedTuple):
    """The summary of one row: title -> number, and cautions."""

    label: str
    tiles: dict[str, Cell]
    warnings: list[str]


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """One summary per row that unlearned something, the highest worst case first."""
    found = [r for r in rows if not r.baseline and "forgotten" in r.cells]
    return [verdict(row) for row in sorted(found, key=rank, reverse=True)]


def rank(row: Row) -> tuple[bool, float]:
    """Order of rows: ``forgotten`` after the worst attack, damaged models last."""
    worst = row.cells.get("worst_case")
    return not row.damaged, worst.value if worst else -1.0


def verdict(row: Row) -> Verdict:
    """The summary of one row."""
    tiles = {title: row.cells[key] for key, title in TILES.items() if key in row.cells}
    return Verdict(row.label, tiles, list(cautions(row)))


def cautions(row: Row) -> Iterator[str]:
    """Reasons not to rely on the numbers of a row."""
    if row.damaged:
        yield "Utility is lost as well: a damaged model also answers the forget questions wrongly."
    seeds = len(row.runs)
    if seeds == 1:
        yield "One seed: intervals are over questions and ignore the variation over seeds."
    elif seeds < FEW_SEEDS:
        yield f"{seeds} seeds are too few to estimate the variation over seeds."
    small = [c.n for c in row.cells.values() if c.n and c.n < FEW_ITEMS]
    if small:
        yield f"Some numbers rest on {min(small)} items only."
    if "worst_case" not in row.cells:
        yield "No attack was measured: whether the knowledge can be recovered is unknown."
    elif (tried := len(forgotten_at_end(row.first))) < FEW_SEEDS:
        yield f"Attacks tried: {tried}. A stronger attack may lower the worst case."
    if left := [a for a in row.first.attacks if a not in forgotten_at_end(row.first)]:
        yield f"Forgetting was not measured after {', '.join(left)}: not in the worst case."
