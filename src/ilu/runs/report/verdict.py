"""The three numbers that decide, each with its interval, and what speaks against believing them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ilu.runs.report.table import Cell, Row
from ilu.runs.results.run_metrics import ends

TILES = {
    "forget_quality": "forget quality after unlearning",
    "worst_case": "forget quality after the worst attack",
    "utility_change": "change of utility",
}
FEW_ITEMS, FEW_SEEDS = 100, 3


class Verdict(NamedTuple):
    """One row's strip: title -> number, and warnings."""

    label: str
    tiles: dict[str, Cell]
    warnings: list[str]


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """A strip per row that unlearned something, the one that stands the worst attack best first."""
    found = [r for r in rows if not r.baseline and "forget_quality" in r.cells]
    return [verdict(row) for row in sorted(found, key=strength, reverse=True)]


def strength(row: Row) -> tuple[bool, float]:
    """What rows are ordered by: forget quality after the worst attack, damaged models last."""
    worst = row.cells.get("worst_case")
    return not row.damaged, worst.value if worst else -1.0


def verdict(row: Row) -> Verdict:
    """The strip of one row."""
    tiles = {title: row.cells[key] for key, title in TILES.items() if key in row.cells}
    return Verdict(row.label, tiles, list(doubts(row)))


def doubts(row: Row) -> Iterator[str]:
    """Why the numbers may not hold."""
    if row.damaged:
        yield "Utility is lost as well: a damaged model also forgets, and has less to recover."
    seeds = len(row.runs)
    if seeds == 1:
        yield "One seed: intervals are over questions; what another seed would give is not in them."
    elif seeds < FEW_SEEDS:
        yield f"{seeds} seeds are too few to judge how much seeds differ."
    shown = [c for c in row.cells.values() if c.n and c.n < FEW_ITEMS]
    if shown:
        yield f"Some numbers rest on {min(c.n for c in shown)} items only."
    if "worst_case" not in row.cells:
        yield "No attack was measured: nothing here says whether the knowledge comes back."
    elif (tried := len(ends(row.first))) < FEW_SEEDS:
        yield f"Attacks tried: {tried}. The worst case is only as bad as they are."
    if left := [a for a in row.first.attacks if a not in ends(row.first)]:
        yield f"Forgetting was not measured after {', '.join(left)}: not in the worst case."
