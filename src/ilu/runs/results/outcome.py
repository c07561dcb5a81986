"""Whether unlearning forgot anything: one share, one sentence, one bound."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ilu.runs.results.forget_metric import forget_metric
from ilu.system.scores import Score

BOUND = 0.1
"""Share below which nothing counts as forgotten."""
LOSS = "forget_nll"


class Outcome(NamedTuple):
    """What unlearning did to what was to be forgotten.

    ``share``: of the accuracy above guessing, the part that is lost; where only the loss was
    measured, its relative rise. ``change`` says this in words, ``sentence`` what was measured.
    """

    share: float
    change: str
    sentence: str

    @property
    def nothing(self) -> bool:
        """Whether so little was forgotten that it counts as nothing."""
        return self.share < BOUND


def outcome(
    recipe: Mapping[str, Any], before: Mapping[str, Score], after: Mapping[str, Score]
) -> Outcome | None:
    """The outcome of a run from its recorded recipe and scores; None if nothing can be said."""
    metric = forget_metric(recipe, after)
    if metric is not None and metric in before and known(before[metric]):
        return by_questions(before[metric], after[metric])
    if LOSS in before and LOSS in after:
        return by_loss(before[LOSS], after[LOSS])
    return None


def known(before: Score) -> bool:
    """Whether the model knew more than guessing gives, so that something can be lost."""
    return before.chance is None or before.value - before.chance > 2 * before.stderr


def lost_above_guessing(before: Score, after: Score) -> float:
    """The share that is lost of an accuracy above guessing; 0 if nothing was known."""
    known = before.value - (before.chance or 0.0)
    return (before.value - after.value) / known if known > 0 else 0.0


def by_questions(before: Score, after: Score) -> Outcome:
    """The outcome by accuracy on questions about what was to be forgotten."""
    share = lost_above_guessing(before, after)
    guessing = f" (guessing: {before.chance:.0%})" if before.chance is not None else ""
    return Outcome(
        share,
        f"{share:.0%} of the accuracy above guessing was lost",
        f"questions on what was to be forgotten: {before.value:.0%} answered rightly before, "
        f"{after.value:.0%} after{guessing}",
    )


def by_loss(before: Score, after: Score) -> Outcome:
    """The outcome by loss on the forget set, for runs without questions."""
    rise = (after.value - before.value) / max(before.value, 1e-6)
    return Outcome(
        rise,
        f"the loss per token {'rose' if rise >= 0 else 'fell'} by {abs(rise):.0%}",
        f"loss per token on what was to be forgotten: {before.value:.3g} before, "
        f"{after.value:.3g} after; whether questions about it are still answered was not measured",
    )
