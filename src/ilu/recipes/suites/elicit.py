"""Attacks that do not change the weights, as a suite."""

from collections.abc import Mapping

from ilu.attacks.prompting.prompts import ACCURACY
from ilu.evals.score import mean_score
from ilu.evals.suite import Scores, Suite
from ilu.recipes.probes import lab, users
from ilu.recipes.suite import SuiteKind
from ilu.recipes.suite_request import SuiteRequest


def elicit(request: SuiteRequest) -> Suite:
    """Attacks that leave the weights unchanged, on the lab's questions or on multiple choice.

    One half of the questions in `data` teaches the attacks; a column paraphrases may list other
    wordings.
    """
    parts = lab(request.limit or 100) if request.data is None else users(request)
    return Suite(parts, derived=strongest)


def strongest(scores: Scores) -> Scores:
    """The highest accuracy of all attacks; a maximum of noisy values is biased upwards."""
    by_name: Mapping[str, float] = {k: s.value for k, s in scores.items() if k.endswith(ACCURACY)}
    best = scores[max(by_name, key=lambda name: by_name[name])]
    return {"strongest_accuracy": mean_score(best.items)}


SUITES = {"elicit": SuiteKind(elicit, data="optional", forms=True)}
