"""The attacks: fine-tuning on six downstream tasks, and relearning by disjoint halves."""

from collections.abc import Mapping
from dataclasses import replace

from ilu.attacks.finetune import FineTune
from ilu.data.downstream import LabelledQuestions
from ilu.data.facts.sources import FactDocuments, FactItems, FactQuestions
from ilu.data.stream import Feed
from ilu.evals.metrics.multiple_choice import Choice
from ilu.recipes.task_attack import task_attack
from ilu.runs.recipe import Recipe
from ilu.runs.results.forget_metric import OTHERS, TASK
from ilu.training.fit import Optim
from ilu.types import Attack

TASKS = ("gsm8k", "ag_news", "sst2", "winogrande", "mnli", "qqp")
"""The downstream tasks of arXiv 2506.01339."""
VALIDATION_TASK = "ag_news"
ORIGINAL = "original"
"""Stands in the place of a family for the model without unlearning."""
TOKENS, BATCH = 96, 4
"""Tokens of an example, and examples per step."""
RELEARNING_BATCH = 16
QUESTIONS = 100
"""Test questions of a task."""


def untouched(made: Recipe, attacks: Mapping[str, Attack]) -> Recipe:
    """The same measurements and other attacks on the model as it was loaded."""
    optim = replace(made.optim, steps=0)
    return replace(
        made, name=ORIGINAL, objective={}, data={}, passes=None, validation=None, optim=optim,
        attacks=attacks,
    )  # fmt: skip


def finetuning(task: str, *, lr: float, steps: int, only_end: bool, seed: int) -> FineTune:
    """Fine-tuning of all weights on a task."""
    optim = Optim(lr=lr, steps=steps)
    attack = task_attack(
        task, optim=optim, batch_size=BATCH, columns=(), truncate=TOKENS, seed=seed
    )
    questions = (
        Choice(LabelledQuestions(task, QUESTIONS), batch_size=16) if task != "gsm8k" else None
    )
    goals = {TASK: questions} if questions else {}  # replies of gsm8k have 400 tokens
    return replace(attack, goals=goals, only_end=only_end)


def relearning(topic: str, part: str, *, lr: float, steps: int, seed: int) -> FineTune:
    """Training on the documents of one half of a topic; the goal asks about the other half.

    RTT of arXiv 2410.08827. What comes back about the other half was not taught.
    """
    other = {"a": "b", "b": "a"}[part]
    questions = FactQuestions(FactItems(f"facts:{topic}/{other}"))
    goals = {OTHERS: Choice(questions, batch_size=16)}
    documents = FactDocuments(f"facts:{topic}/{part}")
    optim = Optim(lr=lr, steps=steps)
    return FineTune(Feed(documents, RELEARNING_BATCH), optim, goals, seed, only_end=True)


def grid(topic: str, seed: int) -> Mapping[str, Attack]:
    """Three rates of three tasks and of relearning, to find how strong an attack must be."""
    tasks = {
        f"{task}@{lr:g}": finetuning(task, lr=lr, steps=steps, only_end=True, seed=seed)
        for task, steps in (("sst2", 80), ("gsm8k", 40), ("ag_news", 40))
        for lr in (3e-5, 1e-4, 3e-4)
        if task != "ag_news" or lr == 1e-4
    }
    halves = {
        f"relearn-half@{lr:g}": relearning(topic, "a", lr=lr, steps=40, seed=seed)
        for lr in (1e-5, 3e-5, 1e-4)
    }
    return {name.replace("@", " at "): each for name, each in {**halves, **tasks}.items()}
