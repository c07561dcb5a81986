"""The main numbers of a model with their intervals, and cautions about them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ilu.runs.report.escape import printable
from ilu.runs.report.evidence import percent, questions_agree
from ilu.runs.report.table import Cell, Row
from ilu.runs.results.forget_metric import UTILITY
from ilu.runs.results.outcome import outcome
from ilu.runs.results.run_metrics import (
    after_relearning,
    forgotten,
    forgotten_at_end,
    guessing,
    score,
    worst_case,
)

TILES = {
    "forgotten": "forgotten after unlearning",
    "worst_case": "forgotten after the worst attack",
    "worst_usable": "forgotten after the worst attack that leaves the model usable",
    "utility_change": "change of utility",
}
FEW_ITEMS, FEW_SEEDS = 100, 3


class Verdict(NamedTuple):
    """The summary of one row: a sentence, title -> number, and cautions."""

    label: str
    sentence: str
    tiles: dict[str, Cell]
    warnings: list[str]


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """One summary per row that unlearned something, the highest worst case first.

    Models with different questions are not ranked.
    """
    found = judged(rows)
    ranked = found if unranked(rows) else sorted(found, key=rank, reverse=True)
    return [verdict(row) for row in ranked]


def judged(rows: Sequence[Row]) -> list[Row]:
    """The rows with a summary."""
    return [r for r in rows if not r.baseline and "forgotten" in r.cells]


def unranked(rows: Sequence[Row]) -> bool:
    """Whether the models with a summary have different questions."""
    return not questions_agree([row.first for row in judged(rows)])


def rank(row: Row) -> tuple[bool, float, float]:
    """Order of rows: ``forgotten`` after the worst attack, then before; ineligible ones last."""
    worst = row.cells.get("worst_case")
    return row.eligible, worst.value if worst else -1.0, row.cells["forgotten"].value


def verdict(row: Row) -> Verdict:
    """The summary of one row."""
    tiles = {title: row.cells[key] for key, title in TILES.items() if key in row.cells}
    if before := row.over(lambda m: score(m, "before", UTILITY)):
        changed = TILES["utility_change"]
        tiles |= {k: c._replace(note=f"from {before.value:.3f}") for k, c in tiles.items()
                  if k == changed}  # fmt: skip
    return Verdict(row.label, sentence(row), tiles, list(cautions(row)))


def sentence(row: Row) -> str:
    """What the model knew, knows after unlearning, and after the worst attack."""
    before = row.over(lambda m: forgotten(m, "before"))
    known = f"after unlearning {percent(1 - row.cells['forgotten'].value)}{after_worst(row)}."
    subject = "of the questions on what was to be forgotten"
    if before is None:
        found = f"Share that the model answers {subject}: {known}"
    else:
        found = f"The model answered {percent(1 - before.value)} {subject}; {known}"
    chance = guessing(row.first)
    guess = "" if chance is None else f" Guessing gives {percent(chance)}."
    nothing = f" These questions show no forgetting: {row.no_forgetting}."
    return found + guess + (nothing if row.no_forgetting else "")


def after_worst(row: Row) -> str:
    """The part of the sentence on the worst attack, with its questions where they are others."""
    worst = row.cells.get("worst_case")
    if worst is None:
        return ""
    names = dict.fromkeys(each[0] for m in row.runs if (each := worst_case(m)))
    base = "" if worst.n == row.cells["forgotten"].n else f" of {worst.n} questions"
    if all(name in after_relearning(row.first) for name in names):
        base = f" of the {worst.n} questions that the attack did not train on"
    name = printable(", ".join(names))
    return f", after the worst attack ({name}) {percent(1 - worst.value)}{base}"


def cautions(row: Row) -> Iterator[str]:
    """Reasons not to rely on the numbers of a row."""
    if row.damaged:
        yield "Utility is lost as well: a damaged model also answers the forget questions wrongly."
    found = outcome(row.first.recipe, *(row.first.stages.get(s, {}) for s in ("before", "after")))
    if found and found.nothing:
        yield f"Nothing was forgotten: {found.sentence}."
    yield from few(row)
    if "worst_case" not in row.cells:
        yield "No attack was measured: whether the knowledge can be recovered is unknown."
    elif (tried := len(forgotten_at_end(row.first))) < FEW_SEEDS:
        yield f"Attacks tried: {tried}. A stronger attack may lower the worst case."
    elif "utility" in row.cells and "worst_usable" not in row.cells:
        yield "No attack left the model usable, or utility was not measured after them."
    if left := [a for a in row.first.attacks if a not in forgotten_at_end(row.first)]:
        yield f"Forgetting was not measured after {', '.join(left)}: not in the worst case."


def few(row: Row) -> Iterator[str]:
    """Too few seeds or items."""
    seeds = len(row.runs)
    if seeds == 1:
        yield "One seed: intervals are over questions and ignore the variation over seeds."
    elif seeds < FEW_SEEDS:
        yield f"{seeds} seeds are too few to estimate the variation over seeds."
    small = [c.n for c in row.cells.values() if c.n and c.n < FEW_ITEMS]
    if small:
        yield f"Some numbers rest on {min(small)} items only."
