"""Multiple choice as a suite, used by several suites."""

from collections.abc import Mapping

from ilu.evals.metrics.mcnemar import changes
from ilu.evals.metrics.multiple_choice import ChoiceReport
from ilu.evals.suite import Suite
from ilu.types import Questions


def questions(sources: Mapping[str, Questions]) -> Suite:
    """Multiple choice on one or several sets. A reference adds paired comparisons."""
    return Suite({name: ChoiceReport(name, q) for name, q in sources.items()}, compared=changes)
