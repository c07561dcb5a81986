"""Loss on the user's data."""

from ilu.evals.metrics.likelihood import AnswerNLL
from ilu.evals.suite import Suite
from ilu.recipes.suite import SuiteKind
from ilu.recipes.suite_data import user_dataset
from ilu.recipes.suite_request import SuiteRequest


def likelihood(request: SuiteRequest) -> Suite:
    """Loss per answer token on the user's data."""
    return Suite({"nll": AnswerNLL(user_dataset(request), request.limit)})


SUITES = {"likelihood": SuiteKind(likelihood, truncates=True)}
