"""How deep unlearning goes: what each block lacks of the original's knowledge."""

from ilu.data.facts.selection import is_facts
from ilu.data.facts.sources import FactItems, FactQuestions
from ilu.data.multiple_choice import RightAnswers
from ilu.evals.metrics.patching import Patching, depth_scores
from ilu.evals.suite import Suite
from ilu.lab.sources import Facts
from ilu.models.load import SecondModel
from ilu.models.named import LAB, full_name
from ilu.recipes.suite import SuiteKind
from ilu.recipes.suite_data import user_dataset
from ilu.recipes.suite_request import SuiteRequest
from ilu.types import Source

LAB_QUESTIONS = 120


def depth(request: SuiteRequest) -> Suite:
    """Log-probability of the answers that `original` loses with the hidden states of each block.

    The answers are the lab's about agents, those to held-out questions about facts, or those of
    `data`. With a `reference` that never knew them, the Unlearning Depth Score (arXiv 2605.24614).
    """
    if request.original is None and request.data is not None:
        raise ValueError("the suite depth needs the model before unlearning: set `original`")
    original = SecondModel(full_name(request.original or LAB))
    own = request.data is None or is_facts(request.data)
    if own and request.truncate is not None:
        raise ValueError("`truncate` is for a file or a hub dataset: leave it out for questions")
    part = Patching(answers(request), original, None if own else request.limit)
    return Suite({"patching": part}, compared=depth_scores)


def answers(request: SuiteRequest) -> Source:
    """The questions with their answers."""
    if request.data is None:
        return RightAnswers(Facts("agents", count=request.limit or LAB_QUESTIONS))
    if is_facts(request.data):
        return RightAnswers(FactQuestions(FactItems(request.data, request.limit)))
    return user_dataset(request)


SUITES = {"depth": SuiteKind(depth, data="optional", truncates=True, original=True)}
