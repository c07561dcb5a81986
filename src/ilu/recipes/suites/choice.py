"""Multiple choice on the user's questions."""

from ilu.data.multiple_choice import ChoiceRows
from ilu.evals.suite import Suite
from ilu.recipes.choice_suite import questions
from ilu.recipes.suite import SuiteKind
from ilu.recipes.suite_request import SuiteRequest
from ilu.recipes.user_data import column_names, full


def choice(request: SuiteRequest) -> Suite:
    """Multiple choice on the user's data."""
    columns = column_names(request.columns)
    rows = ChoiceRows(full(request.data or ""), columns, request.limit, request.form)
    return questions({"choice": rows})


SUITES = {"choice": SuiteKind(choice, forms=True)}
