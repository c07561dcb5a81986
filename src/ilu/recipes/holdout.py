"""Recipes for a search over settings, whose metrics use only one half of the items."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ilu.attacks.registry import label
from ilu.attacks.sequence import InTurn
from ilu.data.splits import Half, HalfOfExamples, HalfOfQuestions
from ilu.evals.metrics.likelihood import AnswerNLL, HeldOutNLL
from ilu.evals.metrics.multiple_choice import Choice
from ilu.recipes.attacks import split_names
from ilu.runs.recipe import Recipe
from ilu.system.scores import STAGES
from ilu.types import Metric

STAGE = rf"before|after|.+-({'|'.join(STAGES)})"


def on_half(recipe: Recipe, half: Half) -> Recipe:
    """The recipe with every metric, and every goal of its attacks, on one half of the items.

    Slow metrics are not divided, and left out on the validation half: settings are not chosen by
    them.
    """
    metrics = {
        name: halved(name, metric, half)
        for name, metric in recipe.metrics.items()
        if not isinstance(metric, HeldOutNLL)  # whose examples are a few already
    }
    attacks = {name: aimed(attack, half) for name, attack in recipe.attacks.items()}
    slow = recipe.slow_metrics if half == "test" else {}
    return replace(recipe, metrics=metrics, slow_metrics=slow, attacks=attacks)


def halved(name: str, metric: Any, half: Half) -> Metric:
    """A metric on half of its items."""
    if isinstance(metric, Choice):
        return replace(metric, questions=HalfOfQuestions(metric.questions, half))
    if isinstance(metric, AnswerNLL):
        # The limit counts items of both halves.
        limit = metric.limit and max(1, metric.limit // 2)
        return replace(metric, source=HalfOfExamples(metric.source, half), limit=limit)
    raise ValueError(
        f"the metric {name!r} cannot be split into validation and test: only multiple choice and "
        "losses can, so settings cannot be searched for with it"
    )


def aimed(attack: Any, half: Half) -> Any:
    """An attack with its goals on the test half; on the validation half it has no goals."""
    if isinstance(attack, InTurn):
        return InTurn({name: aimed(part, half) for name, part in attack.attacks.items()})
    goals = {n: goal(n, m, half) for n, m in attack.goals.items()} if half == "test" else {}
    return replace(attack, goals=goals) if attack.goals else attack


def goal(name: str, metric: Any, half: Half) -> Metric:
    """A goal on half of its items, or unchanged if it cannot be split."""
    return halved(name, metric, half) if isinstance(metric, Choice | AnswerNLL) else metric


def read_goal(text: str) -> dict[tuple[str, str], float]:
    """Parse ``METRIC@STAGE,-METRIC@STAGE``: metrics to maximise, or with a minus to minimise."""
    weights: dict[tuple[str, str], float] = {}
    for item in split_names(text):
        metric, _, stage = item.lstrip("-").partition("@")
        if not (metric and re.fullmatch(STAGE, stage)):
            raise ValueError(
                f"`goal` {text!r}: write METRIC@STAGE, separated by commas, with - before a metric "
                "to minimise, like utility@after,-forget_accuracy@mood-end; a stage is before, "
                f"after, or ATTACK-POINT, where POINT is one of {', '.join(STAGES)}"
            )
        weights[metric, stage] = -1.0 if item.startswith("-") else 1.0
    return weights


def attacks_of(goal: Mapping[tuple[str, str], float]) -> list[str]:
    """The attacks after which a goal is measured. They are for validation, not for the test."""
    stages = [stage for _, stage in goal if stage not in ("before", "after")]
    return list(dict.fromkeys(stage.rpartition("-")[0] for stage in stages))


def as_recorded(goal: Mapping[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    """The goal with stages as in the files of runs: lora-mood-end for ``lora:mood-end``."""
    return {(metric, as_stage(stage)): weight for (metric, stage), weight in goal.items()}


def as_stage(stage: str) -> str:
    """The name of a stage in files."""
    attack, dash, point = stage.rpartition("-")
    return f"{label(attack)}-{point}" if dash else stage
