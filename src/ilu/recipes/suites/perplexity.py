"""Perplexity of the user's text."""

from ilu.evals.metrics.perplexity import DocumentPerplexity, StridedPerplexity
from ilu.evals.suite import Suite
from ilu.recipes.suite import SuiteKind
from ilu.recipes.suite_data import passages
from ilu.recipes.suite_request import SuiteRequest


def perplexity(request: SuiteRequest) -> Suite:
    """Perplexity of the user's text, in overlapping windows and by document and word."""
    texts = passages(request, "text")
    words = DocumentPerplexity(texts, per="word")
    return Suite({"perplexity": StridedPerplexity(texts), "word_perplexity": words})


SUITES = {"perplexity": SuiteKind(perplexity)}
