"""Which stored metric of a run is the accuracy on questions about what was to be forgotten."""

from collections.abc import Container, Iterator, Mapping
from typing import Any

Record = Mapping[str, Any]
"""A recorded recipe, or a part of one."""
FORGET, UTILITY, TASK = "forget_accuracy", "utility", "task_accuracy"
"""Stored names of the lab's metrics: forget questions, retained knowledge, downstream task."""
OTHERS = "others_accuracy"
"""Stored name, after a relearning attack: accuracy on forget questions outside its data."""
DIRECT = "direct_accuracy"
"""Stored name in the suite ``elicit``: accuracy on plain questions, without an attack."""
POOLED = "wmdp_acc"
"""Stored name in the suite ``wmdp``: accuracy over all its domains."""
PICKS = "_picks_"
"""Part of the stored names of the shares of questions for which an option is taken."""
ENDINGS = ("_accuracy", "_acc")
SIZES = ("count", "limit", "batch_size")
"""Fields of a metric that change how many items are used, not which questions."""


def forget_metric(recipe: Record, scores: Container[str]) -> str | None:
    """The metric in ``scores`` that measures forgetting; None where that is unknown.

    The metrics of the lab, ``elicit`` and WMDP are known by name. The user's own questions may be
    about anything: they count only if the prompting attacks (``probes``) use the same questions.
    """
    for name in (FORGET, DIRECT, POOLED):
        if name in scores:
            return name
    records = metric_records(recipe["metrics"])
    names = [f"{name}_acc" for name, record in records if is_about_forgotten(record, recipe)]
    known = [name for name in names if name in scores]
    return known[0] if len(known) == 1 else None


def is_about_forgotten(metric: Any, recipe: Record) -> bool:
    """Whether the questions of a metric are known to be about what was to be forgotten."""
    questions = metric.get("questions") if isinstance(metric, Mapping) else None
    if not isinstance(questions, Mapping):
        return False
    return questions.get("type") == "WMDP" or contains(recipe.get("probes"), questions)


def same_forget_questions(a: Record, b: Record, metric: str) -> bool:
    """Whether ``metric`` uses the same questions in two recipes; their number may differ."""
    ours, theirs = (without_sizes(metric_record(r["metrics"], metric)) for r in (a, b))
    return metric == FORGET or ours == theirs


def metric_records(metrics: Record) -> Iterator[tuple[str, Any]]:
    """Name and record of every metric; a suite is replaced by its parts."""
    for name, record in metrics.items():
        inner = record.get("parts") if isinstance(record, Mapping) else None
        yield from inner.items() if isinstance(inner, Mapping) else [(name, record)]


def metric_record(metrics: Record, metric: str) -> Any:
    """The record of one metric; all records for a derived score, such as a mean."""
    known = dict(metric_records(metrics))
    names = (metric, *(metric.removesuffix(ending) for ending in ENDINGS))
    return next((known[name] for name in names if name in known), metrics)


def contains(record: Any, part: Any) -> bool:
    """Whether ``part`` occurs in a record, at any depth."""
    if record == part:
        return True
    inner = record.values() if isinstance(record, Mapping) else record
    return isinstance(record, Mapping | list) and any(contains(each, part) for each in inner)


def without_sizes(record: Any) -> Any:
    """A record without the fields in ``SIZES``."""
    if isinstance(record, Mapping):
        return {k: without_sizes(v) for k, v in record.items() if k not in SIZES}
    return record
