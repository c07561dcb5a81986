"""Suites of multiple choice: what a model knows, and what it has learned to do."""

from dataclasses import replace
from typing import Literal, get_args

from ilu.data.downstream import LabelledQuestions, Problems
from ilu.data.exams import MMLU, WMDP, Domain, TruthfulQA
from ilu.data.multiple_choice import ChoiceRows
from ilu.evals.metrics.final_number import FinalNumber
from ilu.evals.metrics.mcnemar import changes
from ilu.evals.metrics.multiple_choice import ChoiceReport
from ilu.evals.score import mean_score
from ilu.evals.suite import Scores, Suite
from ilu.recipes.suite_request import Asked
from ilu.recipes.user_data import column_names, full
from ilu.types import Questions

TaskSplit = Literal["ag_news", "sst2", "winogrande", "mnli", "qqp", "gsm8k"]


def choice(asked: Asked) -> Suite:
    """Multiple choice on the user's data."""
    columns = column_names(asked.columns)
    return questions(choice=ChoiceRows(full(asked.data or ""), columns, asked.limit, asked.form))


def questions(**sources: Questions) -> Suite:
    """Multiple choice on one or several sets; beside a reference, question by question."""
    return Suite({name: ChoiceReport(name, q) for name, q in sources.items()}, compared=changes)


def wmdp(asked: Asked) -> Suite:
    """WMDP's questions, all domains or one."""
    domains = (d for d in get_args(Domain) if asked.split in (None, d))
    found = questions(**{f"wmdp_{d}": WMDP(d, asked.form, asked.limit) for d in domains})
    return found if asked.split else replace(found, derived=pooled_wmdp)


def pooled_wmdp(scores: Scores) -> Scores:
    """Accuracy over the questions of all domains, as the group of lm-evaluation-harness has it."""
    items = [item for d in get_args(Domain) for item in scores[f"wmdp_{d}_acc"].items]
    return {"wmdp_acc": mean_score(items)}


def mmlu(asked: Asked) -> Suite:
    """MMLU over all subjects."""
    return questions(mmlu=MMLU(form=asked.form, limit=asked.limit))


def truthfulqa(asked: Asked) -> Suite:
    """TruthfulQA with one true answer."""
    return questions(truthfulqa_mc1=TruthfulQA(asked.limit))


def tasks(asked: Asked) -> Suite:
    """The downstream tasks that attacks fine-tune on, all or one."""
    names = [t for t in get_args(TaskSplit) if asked.split in (None, t)]
    labelled = {t: LabelledQuestions(t, asked.limit) for t in names if t != "gsm8k"}
    found = questions(**labelled)
    if "gsm8k" not in names:
        return found
    number = FinalNumber(Problems(limit=asked.limit))
    return replace(found, parts={**found.parts, "gsm8k": number})
