"""MMLU."""

from ilu.data.exams import MMLU
from ilu.evals.suite import Suite
from ilu.recipes.choice_suite import questions
from ilu.recipes.suite import SuiteKind
from ilu.recipes.suite_request import SuiteRequest


def mmlu(request: SuiteRequest) -> Suite:
    """MMLU over all subjects."""
    return questions({"mmlu": MMLU(form=request.form, limit=request.limit)})


SUITES = {"mmlu": SuiteKind(mmlu, data="own", forms=True)}
