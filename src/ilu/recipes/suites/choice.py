"""Multiple choice on the user's questions."""

from ilu.evals.suite import Suite
from ilu.recipes.choice_suite import questions
from ilu.recipes.suite import SuiteKind
from ilu.recipes.suite_data import choice_rows
from ilu.recipes.suite_request import SuiteRequest


def choice(request: SuiteRequest) -> Suite:
    """Multiple choice on `data` with the columns question, choices and answer."""
    return questions({"choice": choice_rows(request)})


SUITES = {"choice": SuiteKind(choice, forms=True)}
