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
    """Metrics of lm-evaluation-harness, for its published prompts and for tasks without our own.

    Each is ``TASK_METRIC``, with its filter's name behind it if it has one, and has the value of
    every item where it is a mean of items. Nothing is cached: the harness's cache knows the
    question and not the model. The model's mode and all random states are left as found.
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
        found = task_scores(results, loaded["tasks"])
        return found | group_scores(results, found)

    def content(self, tokenizer: Any) -> Any:
        """Everything that is asked, and how it is scored."""
        with same_draws():
            return requests(self.tasks(), self.limit)


def evaluated(lm: LM, loaded: Any, *, limit: int | None, batch_size: int | str) -> Any:
    """What the harness returns, without errors: its bootstrap starts a pool of processes."""
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
    """The model as the harness sees it; its tokenizer is a copy, which gets a padding token."""
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
    """Put back what the harness changes: training mode and the three random states."""
    training = {m: m.training for m in model.modules()}
    try:
        with same_draws():
            yield
    finally:
        for module, was in training.items():
            module.training = was


@contextmanager
def same_draws() -> Generator[None]:
    """Put back the three random states."""
    import numpy as np

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


class Key(NamedTuple):
    """``METRIC,FILTER`` of the harness's results taken apart."""

    metric: str
    filter: str

    def name(self, task: str) -> str:
        """What the score of a task is called."""
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
    """How a task makes one number of its items'."""
    return task.aggregation()[key.metric]


def samples(results: Mapping[str, Any], task: str, key: Key) -> list[Any]:
    """What each item adds to a metric, in the order of the data."""
    rows = [row for row in results["samples"][task] if row["filter"] == key.filter]
    return [row[key.metric] for row in sorted(rows, key=lambda row: row["doc_id"])]


def task_score(value: float, values: list[Any], combine: Callable[[Sequence[Any]], float]) -> Score:
    """The harness's value with our error: of the mean, or else over resampled items."""
    if all(isinstance(v, int | float) for v in values):
        found = mean_score([float(v) for v in values])
        if isclose(found.value, value, rel_tol=1e-6, abs_tol=1e-9):
            return found
    draw = random.Random(0)
    again = [combine(draw.choices(values, k=len(values))) for _ in range(RESAMPLES)]
    return Score(value, float(stdev(again)), len(values))


def group_scores(results: Mapping[str, Any], found: Mapping[str, Score]) -> dict[str, Score]:
    """One score per group and metric, from its tasks': over all items, or a mean of the tasks."""
    groups = {g: leaves(results["group_subtasks"], g) for g in results.get("groups", {})}
    return {
        key.name(group): group_score(value, [found[key.name(t)] for t in tasks])
        for group, tasks in groups.items()
        for key, value in keys(results["groups"][group]).items()
    }


def leaves(children: Mapping[str, Sequence[str]], name: str) -> list[str]:
    """The tasks under a group, those of its subgroups too."""
    below = children.get(name, ())
    return [leaf for child in below for leaf in leaves(children, child)] if below else [name]


def group_score(value: float, parts: Sequence[Score]) -> Score:
    """A group that weighs items equally has its items; one that weighs tasks equally has none."""
    items = [item for part in parts for item in part.items]
    if items and isclose(fmean(i for i in items if i is not None), value, rel_tol=1e-6):
        return mean_score(items)
    error = sqrt(sum(part.stderr**2 for part in parts)) / len(parts)
    return Score(value, error, sum(part.n for part in parts))
