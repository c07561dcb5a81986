"""How a model continues the user's prompts, also by the judgement of text classifiers."""

from dataclasses import replace

from ilu.evals.metrics.fluency import Fluency
from ilu.evals.suite import Suite
from ilu.recipes.suite import SuiteKind
from ilu.recipes.suite_data import judges, passages
from ilu.recipes.suite_request import SuiteRequest


def fluency(request: SuiteRequest) -> Suite:
    """How the model goes on after the user's prompts, if wanted in the eyes of classifiers."""
    return Suite({"fluency": Fluency(passages(request, "prompt"), classifiers=judges(request))})


def toxicity(request: SuiteRequest) -> Suite:
    """The same with the probability, by a classifier, that what it writes is toxic."""
    request = replace(request, classifiers=request.classifiers or ("toxic",))
    return Suite({"toxicity": Fluency(passages(request, "prompt"), classifiers=judges(request))})


SUITES = {
    "fluency": SuiteKind(fluency, classifiers=True),
    "toxicity": SuiteKind(toxicity, classifiers=True),
}
