"""Any task of lm-evaluation-harness (0.4.13) on a model in memory."""

import copy
import random
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isclose, sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from ilu.extras import need
from ilu.forward import context_length
from ilu.types import LM, Score, check_limit, mean_score

USUAL = (
    "wmdp", "mmlu/default", "mmlu/continuation", "truthfulqa", "winogrande", "gsm8k", "glue",
    "hellaswag", "arc", "piqa", "boolq", "openbookqa", "wikitext", "lambada",
)  # fmt: skip
"""Folders of tasks that are looked through first: reading all 14,000 takes ten seconds."""
RESAMPLES = 200


@dataclass(frozen=True)
class Harness:
    """Tasks and groups of lm-evaluation-harness: by name, by YAML file, or as a mapping.

    ``folder`` holds YAML tasks of the user's own; local data files work offline (``dataset_path:
    json``). Each metric becomes ``TASK_METRIC``, with the filter's name behind where it has one,
    with the value of every item where the metric is a mean of items. Nothing is cached: its cache
    knows the question and not the model. The model's mode and all random states are left as found.
    """

    tasks: tuple[str | Mapping[str, Any], ...]
    folder: str | None = None
    limit: int | None = None
    num_fewshot: int | None = None
    batch_size: int | Literal["auto"] = 16

    def __post_init__(self) -> None:
        check_limit(self.limit)

    def __call__(self, lm: LM) -> dict[str, Score]:
        need("lm_eval", "lm-eval", "the suite lm-eval")
        import lm_eval

        evaluate: Any = lm_eval.evaluate  # its decorators hide its arguments
        with untouched(lm.model):
            loaded = load_tasks(self.tasks, self.folder, self.num_fewshot)
            results = evaluate(
                lm=as_harness_model(lm, self.batch_size),
                task_dict=loaded,
                limit=self.limit,
                bootstrap_iters=0,  # the errors are ours: its bootstrap starts a pool of processes
                log_samples=True,
            )
        found = task_scores(results, loaded["tasks"])
        return found | group_scores(results, found)


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


def load_tasks(
    tasks: Sequence[str | Mapping[str, Any]], folder: str | None, num_fewshot: int | None
) -> Any:
    """Tasks and groups; ``num_fewshot`` counts unless a task insists on none."""
    names = [task if isinstance(task, str) else dict(task) for task in tasks]
    manager = task_manager(names, folder)
    try:
        loaded = manager.load(names)
    except Exception as error:  # the library raises a different one for every cause
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"lm-evaluation-harness cannot load its tasks: {reason}") from error
    for task in loaded["tasks"].values():
        own = task.get_config("num_fewshot")
        wanted = own if num_fewshot is None or own == 0 else num_fewshot
        task.set_config(key="num_fewshot", value=wanted or 0)
        task.set_fewshot_seed(seed=1234)  # the harness's own default
    return loaded


def task_manager(names: Sequence[str | dict[str, Any]], folder: str | None) -> Any:
    """An index of the usual tasks and the user's, or of all if a name is not among them."""
    from lm_eval import tasks

    root = Path(tasks.__file__).parent
    own: list[str | Path] = [] if folder is None else [folder]
    usual = [root / part for part in USUAL if (root / part).is_dir()]
    wanted = {n for n in names if isinstance(n, str) and not n.endswith((".yaml", ".yml"))}
    manager = tasks.TaskManager(include_defaults=False, include_path=[*usual, *own])
    if wanted <= set(manager.all_tasks):
        return manager
    manager = tasks.TaskManager(include_path=own or None)
    unknown = sorted(wanted - set(manager.all_tasks))
    if unknown:
        raise ValueError(
            f"lm-evaluation-harness has no task {unknown[0]!r}: `lm-eval ls tasks` lists its own, "
            "and yours need their folder"
        )
    return manager


@contextmanager
def untouched(model: nn.Module) -> Generator[None]:
    """Put back what the harness changes: training mode and the three random states."""
    import numpy as np

    training = {m: m.training for m in model.modules()}
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        for module, was in training.items():
            module.training = was
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
