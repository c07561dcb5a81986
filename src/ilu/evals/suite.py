"""Metrics measured together, and what follows from their scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ilu.scores import Score
from ilu.types import LM, Group, Metric

Scores = Mapping[str, Score]


def nothing_derived(scores: Scores) -> Scores:
    """Nothing follows from the scores."""
    return {}


def nothing_compared(scores: Scores, reference: Scores) -> Scores:
    """Nothing follows from the scores of a reference model beside them."""
    return {}


@dataclass(frozen=True)
class Suite:
    """Metrics and groups by name; ``derived`` needs their scores alone, ``compared`` a reference's.

    ``followed`` needs those of several models in an order that means something, the original first,
    and returns what it adds to each. Each part is one piece of work that can be kept when a later
    one is interrupted. All three functions are pure and cheap.
    """

    parts: Mapping[str, Metric | Group]
    derived: Callable[[Scores], Scores] = nothing_derived
    compared: Callable[[Scores, Scores], Scores] = nothing_compared
    followed: Callable[[Sequence[Scores]], Sequence[Scores]] | None = None

    def __call__(self, lm: LM) -> Scores:
        found = measure(self.parts, lm)
        return {**found, **self.derived(found)}


def measure(metrics: Mapping[str, Metric | Group], lm: LM) -> dict[str, Score]:
    """Every score; those of a group have their own names."""
    found: dict[str, Score] = {}
    for name, metric in metrics.items():
        found |= named(name, metric(lm))
    return found


def named(name: str, result: Score | Scores) -> Scores:
    """The score of a metric under its name, those of a group under their own."""
    return {name: result} if isinstance(result, Score) else result
