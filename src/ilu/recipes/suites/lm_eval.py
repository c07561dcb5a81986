"""Tasks of lm-evaluation-harness."""

from ilu.data.lm_eval import HarnessTasks
from ilu.evals.metrics.lm_eval import Harness
from ilu.evals.suite import Suite
from ilu.recipes.suite import SuiteKind
from ilu.recipes.suite_request import SuiteRequest
from ilu.recipes.user_data import full


def harness(request: SuiteRequest) -> Suite:
    """Tasks of lm-evaluation-harness, given as comma-separated names."""
    names = tuple(full(name.strip()) for name in (request.data or "").split(","))
    size = request.batch_size or Harness.batch_size
    return Suite({"lm_eval": Harness(HarnessTasks(names), request.limit, size)})


SUITES = {"lm-eval": SuiteKind(harness, data="tasks", columns=False, batch_size=True)}
