"""Any task of lm-evaluation-harness (0.4.13) on a model in memory."""

import copy
import random
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isclose, sqrt
from statistics import fmean, stdev
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from ilu.data.lm_eval import HarnessTasks, requests
from ilu.evals.score import mean_score
from ilu.models.blocks import context_length
from ilu.scores import Score
from ilu.system.checks import check_limit
from ilu.types import LM

RESAMPLES = 200


@dataclass(frozen=True)
class Harness:
    """Metrics of lm-evaluation-harness, with its published prompts.

    A score is named ``TASK_METRIC`` or ``TASK_METRIC_FILTER``. It has the value of every item if it
    is a mean of items. The harness's cache is not used, since its keys do not include the model.
    The model's mode and all random states are restored.
    """

    tasks: HarnessTasks
    limit: int | None = None
    batch_size: int | Literal["auto"] = 16

    def __post_init__(self) -> None:
        check_limit(self.limit)

    def __call__(self, lm: LM) -> dict[str, Score]:
        with untouched(lm.model):
            loaded = self.tasks()
            results = evaluated(lm, loaded, limit=self.limit, batch_size=self.batch_size)
        scores = task_scores(results, loaded["tasks"])
        return scores | group_scores(results, scores)

    def content(self, tokenizer: Any) -> Any:
        """All requests of the tasks, and how they are scored."""
        with same_draws():
            return requests(self.tasks(), self.limit)


def evaluated(lm: LM, loaded: Any, *, limit: int | None, batch_size: int | str) -> Any:
    """Results of the harness, without its bootstrapped errors, which start a pool of processes."""
    import lm_eval

    evaluate: Any = lm_eval.evaluate  # its decorators hide its arguments
    return evaluate(
        lm=as_harness_model(lm, batch_size),
        task_dict=loaded,
        limit=limit,
        bootstrap_iters=0,
        log_samples=True,
    )


def as_harness_model(lm: LM, batch_size: int | str) -> Any:
    """The model in the harness's wrapper, which adds a padding token to a copy of the tokenizer."""
    from lm_eval.models import huggingface

    wrapped: Any = huggingface.HFLM
    return wrapped(
        pretrained=lm.model,
        tokenizer=copy.deepcopy(lm.tokenizer),
        batch_size=batch_size,
        max_length=context_length(lm.model),
    )


@contextmanager
def untouched(model: nn.Module) -> Generator[None]:
    """Restore what the harness changes: training mode and the three random states."""
    training = {m: m.training for m in model.modules()}
    try:
        with same_draws():
            yield
    finally:
        for module, was in training.items():
            module.training = was


@contextmanager
def same_draws() -> Generator[None]:
    """Restore the three random states."""
    import numpy as np

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


class Key(NamedTuple):
    """The two parts of ``METRIC,FILTER``, a key of the harness's results."""

    metric: str
    filter: str

    def name(self, task: str) -> str:
        """The name of the score of a task."""
        return "_".join([task, self.metric, *([] if self.filter == "none" else [self.filter])])


def keys(row: Mapping[str, Any]) -> dict[Key, float]:
    """The metrics of a row of results, without their errors."""
    parted = {Key(*k.split(",", 1)): v for k, v in row.items() if "," in k}
    return {k: float(v) for k, v in parted.items() if not k.metric.endswith("_stderr")}


def task_scores(results: Mapping[str, Any], tasks: Mapping[str, Any]) -> dict[str, Score]:
    """One score per task and metric."""
    return {
        key.name(task): task_score(
            value, samples(results, task, key), aggregation(tasks[task], key)
        )
        for task in results["samples"]
        for key, value in keys(results["results"][task]).items()
    }


def aggregation(task: Any, key: Key) -> Callable[[Sequence[Any]], float]:
    """The function with which a task combines the values of its items."""
    return task.aggregation()[key.metric]


def samples(results: Mapping[str, Any], task: str, key: Key) -> list[Any]:
    """The value of each item for a metric, in the order of the data."""
    rows = [row for row in results["samples"][task] if row["filter"] == key.filter]
    return [row[key.metric] for row in sorted(rows, key=lambda row: row["doc_id"])]


def task_score(value: float, values: list[Any], combine: Callable[[Sequence[Any]], float]) -> Score:
    """The harness's value with a standard error: of the mean, or else bootstrapped over items."""
    if all(isinstance(v, int | float) for v in values):
        score = mean_score([float(v) for v in values])
        if isclose(score.value, value, rel_tol=1e-6, abs_tol=1e-9):
            return score
    draw = random.Random(0)
    resampled = [combine(draw.choices(values, k=len(values))) for _ in range(RESAMPLES)]
    return Score(value, float(stdev(resampled)), len(values))


def group_scores(results: Mapping[str, Any], scores: Mapping[str, Score]) -> dict[str, Score]:
    """One score per group and metric, from the scores of its tasks."""
    groups = {g: leaves(results["group_subtasks"], g) for g in results.get("groups", {})}
    return {
        key.name(group): group_score(value, [scores[key.name(t)] for t in tasks])
        for group, tasks in groups.items()
        for key, value in keys(results["groups"][group]).items()
    }


def leaves(children: Mapping[str, Sequence[str]], name: str) -> list[str]:
    """The tasks of a group and of its subgroups."""
    below = children.get(name, ())
    return [leaf for child in below for leaf in leaves(children, child)] if below else [name]


def group_score(value: float, parts: Sequence[Score]) -> Score:
    """The score of a group; it has items if it is a mean over items, but not if over tasks."""
    items = [item for part in parts for item in part.items]
    if items and isclose(fmean(i for i in items if i is not None), value, rel_tol=1e-6):
        return mean_score(items)
    error = sqrt(sum(part.stderr**2 for part in parts)) / len(parts)
    return Score(value, error, sum(part.n for part in parts))
