"""The lab's questions and downstream tasks."""

from ilu.evals.metrics.multiple_choice import Choice
from ilu.evals.suite import Suite
from ilu.lab.sources import Facts, TaskTest
from ilu.lab.tasks import TASKS
from ilu.recipes.suite import SuiteKind
from ilu.recipes.suite_request import SuiteRequest
from ilu.types import Metric


def lab(request: SuiteRequest) -> Suite:
    """Accuracies of the lab's model on both domains and on the downstream tasks."""
    count = request.limit
    facts: dict[str, Metric] = {
        "forget_accuracy": Choice(Facts("agents", count=count)),
        "utility": Choice(Facts("people", count=count)),
        "forget_cloze": Choice(Facts("agents", "cloze", count=count)),
        "utility_cloze": Choice(Facts("people", "cloze", count=count)),
    }
    tasks = {f"task_{t.name}": Choice(TaskTest(t.name, count or 200)) for t in TASKS}
    return Suite({**facts, **tasks})


SUITES = {"lab": SuiteKind(lab, data="own")}
