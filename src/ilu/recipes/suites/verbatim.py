"""Verbatim memorisation of the user's texts."""

from ilu.evals.metrics.verbatim import Verbatim
from ilu.evals.suite import Suite
from ilu.recipes.suite import SuiteKind
from ilu.recipes.suite_data import user_dataset
from ilu.recipes.suite_request import SuiteRequest


def verbatim(request: SuiteRequest) -> Suite:
    """Verbatim reproduction of the user's texts."""
    return Suite({"verbatim": Verbatim(user_dataset(request), request.limit)})


SUITES = {"verbatim": SuiteKind(verbatim, truncates=True)}
