"""TruthfulQA."""

from ilu.data.exams import TruthfulQA
from ilu.evals.suite import Suite
from ilu.recipes.choice_suite import questions
from ilu.recipes.suite import SuiteKind
from ilu.recipes.suite_request import SuiteRequest


def truthfulqa(request: SuiteRequest) -> Suite:
    """TruthfulQA with one true answer."""
    return questions({"truthfulqa_mc1": TruthfulQA(request.limit)})


SUITES = {"truthfulqa": SuiteKind(truthfulqa, data="own")}
