"""What users see of stored scores, in one place: names, titles and direction.

Run directories store the accuracy on the forget questions, which falls when a model forgets. Every
table, plot and page shows ``forgotten`` = 1 - accuracy instead, which rises.
"""

from collections.abc import Mapping

from ilu.runs.results.forget_metric import FORGET, OTHERS
from ilu.system.scores import Score

FORGOTTEN = "forgotten"
UNSEEN = "forgotten (not in the attack's data)"
"""Shown for ``OTHERS``."""
CLOZE, WITHOUT_OPTIONS = "forget_cloze", "forgotten (cloze)"
"""Accuracy of the lab's forget questions without options, and what is shown for it."""
BY_CHARACTER = "forgotten (per character)"
"""Shown for the accuracy by log-likelihood per character on the same questions."""
COLUMNS = {
    "forgotten": FORGOTTEN,
    "utility": "utility",
    "still_forgotten": "still forgotten after fine-tuning",
    "area": "forgotten, area under the curve",
    "task_accuracy": "task accuracy",
    "worst_case": "worst case",
    "worst_usable": "worst usable case",
    "after_relearning": "after relearning",
}
"""Key of a headline number in files -> its title. All are shares; more is better in all of them."""
MEANINGS = {
    "forgotten": "share of the questions on what was to be forgotten that are answered wrongly "
    "(no forgetting: 0; guessing among four options: 0.75)",
    "utility": "accuracy on what was to be kept",
    "still_forgotten": "mean of forgotten at a quarter, half and the end of each downstream "
    "fine-tuning, as far as measured",
    "area": "area under the curve of forgotten over the share of a fine-tuning that is done, from "
    "its start, mean over the fine-tunings",
    "task_accuracy": "accuracy on a downstream task after fine-tuning on it",
    "worst_case": "lowest forgotten over all attacks and their measurements; the minimum of "
    "several noisy values is biased downwards",
    "worst_usable": "the same over the measurements at which the utility is at least 0.9 of the "
    "original's, or the share in the title of the column: a broken model is of no use to an "
    "attacker",
    "after_relearning": "forgotten after training on a few of the forgotten documents, on "
    "questions about the others",
}
"""Key of a headline number -> its definition."""


def complement(score: Score) -> Score:
    """1 - accuracy, for mean, items and guessing; the standard error is the same."""
    items = tuple(None if item is None else 1 - item for item in score.items)
    chance = None if score.chance is None else 1 - score.chance
    return score._replace(value=1 - score.value, items=items, chance=chance)


def displayed(scores: Mapping[str, Score], metric: str | None = FORGET) -> dict[str, Score]:
    """Scores under the names that users see; ``metric`` is the one that measures forgetting."""
    names = {
        metric: FORGOTTEN, f"{metric}_norm": BY_CHARACTER, OTHERS: UNSEEN, CLOZE: WITHOUT_OPTIONS,
    }  # fmt: skip
    return {
        names.get(name, name): complement(score) if name in names else score
        for name, score in scores.items()
    }
