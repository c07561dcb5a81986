"""WMDP (arXiv 2403.03218)."""

from dataclasses import replace
from typing import get_args

from ilu.data.exams import WMDP, Domain
from ilu.evals.score import mean_score
from ilu.evals.suite import Scores, Suite
from ilu.recipes.choice_suite import questions
from ilu.recipes.suite import SuiteKind
from ilu.recipes.suite_request import SuiteRequest


def wmdp(request: SuiteRequest) -> Suite:
    """WMDP's questions, all domains or one."""
    domains = (d for d in get_args(Domain) if request.split in (None, d))
    suite = questions({f"wmdp_{d}": WMDP(d, request.form, request.limit) for d in domains})
    return suite if request.split else replace(suite, derived=pooled_wmdp)


def pooled_wmdp(scores: Scores) -> Scores:
    """Accuracy over the questions of all domains, like the group score of lm-evaluation-harness."""
    parts = [scores[f"wmdp_{d}_acc"] for d in get_args(Domain)]
    pooled = mean_score([item for part in parts for item in part.items])
    return {"wmdp_acc": pooled._replace(chance=parts[0].chance)}


SUITES = {"wmdp": SuiteKind(wmdp, data="own", splits=get_args(Domain), forms=True)}
