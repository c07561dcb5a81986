"""The questions of the RTT data sets (arXiv 2410.08827), split by split."""

from ilu.data.multiple_choice import ChoiceRows
from ilu.data.rtt import PREFIX, SPLITS, number_of_splits, questions
from ilu.evals.metrics.mcnemar import changes
from ilu.evals.metrics.multiple_choice import ChoiceReport
from ilu.evals.score import mean_score
from ilu.evals.suite import Scores, Suite
from ilu.recipes.suite import SuiteKind
from ilu.recipes.suite_request import SuiteRequest
from ilu.runs.results.forget_metric import FORGET


def rtt(request: SuiteRequest) -> Suite:
    """Accuracy on every split of one data set or of both, and on all as the forget questions.

    ``limit`` is per split. The data is to be forgotten, so a report takes it as that.
    """
    names = [name for name in SPLITS if request.split in (None, name)]
    sources = {
        f"rtt_{name}_{i}": ChoiceRows(
            questions(PREFIX + name, i), limit=request.limit, form=request.form
        )
        for name in names
        for i in range(number_of_splits(PREFIX + name))
    }
    parts = {name: ChoiceReport(name, source) for name, source in sources.items()}
    return Suite(parts, derived=pooled_rtt, compared=changes)


def pooled_rtt(scores: Scores) -> Scores:
    """Accuracy over the questions of all splits."""
    parts = [score for name, score in scores.items() if name.endswith("_acc")]
    pooled = mean_score([item for part in parts for item in part.items])
    return {FORGET: pooled._replace(chance=parts[0].chance)}


SUITES = {"rtt": SuiteKind(rtt, data="own", splits=tuple(SPLITS), forms=True)}
