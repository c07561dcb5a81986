"""Fluency and toxicity of continuations of the user's prompts."""

from dataclasses import replace

from ilu.evals.metrics.fluency import Fluency
from ilu.evals.suite import Suite
from ilu.recipes.suite import SuiteKind
from ilu.recipes.suite_data import judges, passages
from ilu.recipes.suite_request import SuiteRequest


def fluency(request: SuiteRequest) -> Suite:
    """Fluency of the continuations of the user's prompts, optionally scored by text classifiers."""
    return Suite({"fluency": Fluency(passages(request, "prompt"), classifiers=judges(request))})


def toxicity(request: SuiteRequest) -> Suite:
    """The same with a classifier's probability that the continuation is toxic."""
    request = replace(request, classifiers=request.classifiers or ("toxic",))
    return Suite({"toxicity": Fluency(passages(request, "prompt"), classifiers=judges(request))})


SUITES = {
    "fluency": SuiteKind(fluency, classifiers=True),
    "toxicity": SuiteKind(toxicity, classifiers=True),
}
