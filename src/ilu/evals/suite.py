"""A suite: metrics that are measured together, and scores that are computed from theirs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ilu.scores import Score
from ilu.types import LM, Group, Metric

Scores = Mapping[str, Score]


def nothing_derived(scores: Scores) -> Scores:
    """No derived scores."""
    return {}


def nothing_compared(scores: Scores, reference: Scores) -> Scores:
    """No scores from a comparison with a reference model."""
    return {}


@dataclass(frozen=True)
class Suite:
    """Metrics and groups by name, and functions that compute further scores.

    ``derived`` uses the scores of one model. ``compared`` also uses those of a reference model.
    ``followed`` uses those of several models in order, the original first, and returns the
    additional scores of each. Each part is cached separately. The functions are pure and cheap.
    """

    parts: Mapping[str, Metric | Group]
    derived: Callable[[Scores], Scores] = nothing_derived
    compared: Callable[[Scores, Scores], Scores] = nothing_compared
    followed: Callable[[Sequence[Scores]], Sequence[Scores]] | None = None

    def __call__(self, lm: LM) -> Scores:
        scores = measure(self.parts, lm)
        return {**scores, **self.derived(scores)}


def measure(metrics: Mapping[str, Metric | Group], lm: LM) -> dict[str, Score]:
    """All scores by name. The scores of a group have names of their own."""
    scores: dict[str, Score] = {}
    for name, metric in metrics.items():
        scores |= named(name, metric(lm))
    return scores


def named(name: str, result: Score | Scores) -> Scores:
    """The result as named scores: a metric's under ``name``, a group's as they are."""
    return {name: result} if isinstance(result, Score) else result
