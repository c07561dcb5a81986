"""The downstream tasks that attacks fine-tune on."""

from dataclasses import replace
from typing import Literal, get_args

from ilu.data.downstream import LabelledQuestions, Problems
from ilu.evals.metrics.final_number import FinalNumber
from ilu.evals.suite import Suite
from ilu.recipes.choice_suite import questions
from ilu.recipes.suite import SuiteKind
from ilu.recipes.suite_request import SuiteRequest

Task = Literal["ag_news", "sst2", "winogrande", "mnli", "qqp", "gsm8k"]


def tasks(request: SuiteRequest) -> Suite:
    """The downstream tasks that attacks fine-tune on, all or one."""
    names = [t for t in get_args(Task) if request.split in (None, t)]
    labelled = {t: LabelledQuestions(t, request.limit) for t in names if t != "gsm8k"}
    suite = questions(labelled)
    if "gsm8k" not in names:
        return suite
    number = FinalNumber(Problems(limit=request.limit))
    return replace(suite, parts={**suite.parts, "gsm8k": number})


SUITES = {"tasks": SuiteKind(tasks, data="own", splits=get_args(Task))}
