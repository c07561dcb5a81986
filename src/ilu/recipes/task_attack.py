"""Fine-tuning on one task: of the lab, of the hub, or on the user's data."""

from collections.abc import Sequence
from dataclasses import replace

from ilu.attacks.finetune import FineTune
from ilu.attacks.registry import attack_kinds
from ilu.data.downstream import GSM8K, LabelledQuestions, LabelledText, Problems
from ilu.data.downstream import TASKS as LABELLED
from ilu.data.facts.selection import is_facts, selections
from ilu.data.names import Place, place
from ilu.data.readers import FORMATS, is_data_file
from ilu.data.splits import Trained
from ilu.data.stream import Feed
from ilu.data.text import Dataset
from ilu.evals.metrics.final_number import FinalNumber
from ilu.evals.metrics.likelihood import TaskNLL
from ilu.evals.metrics.multiple_choice import Choice
from ilu.lab.tasks import TASKS
from ilu.recipes import lab
from ilu.recipes.user_data import dataset
from ilu.system.errors import unknown
from ilu.training.fit import Optim
from ilu.types import Metric, Source

KNOWN = ("gsm8k", *LABELLED)
"""Downstream tasks of the hub by their short names."""
QUESTIONS = 200
"""Number of test questions of a task, the same as for a task of the lab."""


def task_attack(
    task: str,
    *,
    optim: Optim,
    batch_size: int,
    columns: Sequence[str],
    truncate: int | None,
    seed: int,
) -> FineTune:
    """Fine-tuning on a task of the lab, on a known dataset or on the user's data."""
    check_task(task)
    if task == "relearn":
        attack = lab.relearn(optim.steps)
    elif task in {t.name for t in TASKS}:
        attack = lab.finetune(task, optim.steps)
    elif task in KNOWN:
        source, goal = downstream(task, columns, truncate)
        attack = FineTune(Feed(source, batch_size), optim, {"task_accuracy": goal})
    else:
        source = dataset(task, columns, truncate)
        attack = FineTune(Feed(Trained(source), batch_size), optim, {"task": TaskNLL(source)})
    return replace(attack, feed=Feed(attack.feed.source, batch_size), optim=optim, seed=seed)


def downstream(
    task: str, columns: Sequence[str], truncate: int | None, setting: str = "attack_columns"
) -> tuple[Source, Metric]:
    """Training text of a known task, and its accuracy on questions from another split.

    ``setting``: what ``columns`` are called, for an error.
    """
    if columns:
        raise ValueError(f"the task {task} has fixed columns: leave `{setting}` out")
    if task == "gsm8k":
        train = Dataset("openai/gsm8k:main:train", revision=GSM8K, truncate=truncate)
        return train, FinalNumber(Problems(limit=QUESTIONS))
    questions = LabelledQuestions(task, QUESTIONS)
    return LabelledText(task, truncate), Choice(questions, batch_size=16)


def check_task(task: str) -> None:
    """ValueError for a name that is neither a known task nor a file or hub dataset."""
    names = [*KNOWN, *(t.name for t in TASKS), "relearn"]
    if is_facts(task):
        selections(task)
        return
    if (
        place(task) == Place(task)
        and task not in names
        and "/" not in task
        and not is_data_file(task)
    ):
        every = (
            f"{', '.join(names)}, a file ending in {', '.join(FORMATS)}, or a hub dataset "
            f"ORG/NAME:CONFIG:SPLIT; attacks by name: {', '.join(attack_kinds())}"
        )
        _, _, argument = task.partition(":")
        kinds = [f"{name}:{argument or kind.example}" for name, kind in attack_kinds().items()]
        raise unknown("task", task, [*names, *kinds], every)
