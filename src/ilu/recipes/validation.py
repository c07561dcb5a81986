"""What is measured during training: validation data of a recipe, by its settings."""

from collections.abc import Mapping, Sequence

from ilu.data.facts.selection import Selection, full_name, is_facts, selections
from ilu.data.facts.sources import FactItems, FactTrainingQuestions
from ilu.data.splits import untrained
from ilu.data.stream import Feed
from ilu.evals.metrics.likelihood import AnswerNLL
from ilu.evals.metrics.multiple_choice import Choice
from ilu.recipes.settings import Common
from ilu.runs.validation import Validation
from ilu.types import Metric

LIMIT = 40
"""Most examples of each role."""
TIMES = 10
"""Measurements in ``steps``, where their distance is not set; further steps have more."""


def validation(common: Common, data: Mapping[str, Feed], steps: int) -> Validation | None:
    """The validation of a recipe; None if neither ``eval_every`` nor ``keep`` is set."""
    if common.eval_every is None and common.keep == "last":
        return None
    limit = min(common.limit, LIMIT)
    gone = [each for name in common.forget if is_facts(name) for each in selections(name)]
    kept = selections(common.retain) if common.retain and is_facts(common.retain) else ()
    return Validation(
        every=common.eval_every or max(1, steps // TIMES),
        forget=facts(gone, limit) if gone else loss(data["forget"], limit),
        retain=facts(kept, limit) if kept else retained(data, limit),
        keep=common.keep,
    )


def facts(chosen: Sequence[Selection], limit: int) -> Choice:
    """Accuracy on facts in the wordings of training, which are no test questions."""
    return Choice(FactTrainingQuestions(FactItems(full_name(chosen), limit)), batch_size=16)


def retained(data: Mapping[str, Feed], limit: int) -> Metric | None:
    """The loss on retain data, if there is any."""
    return loss(data["retain"], limit) if "retain" in data else None


def loss(feed: Feed, limit: int) -> AnswerNLL:
    """The loss on the held-out part of data, or on all of it where no part is held out."""
    return AnswerNLL(untrained(feed.source), limit)
