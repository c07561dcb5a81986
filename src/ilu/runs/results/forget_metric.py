"""Which metric of a run means forgetting: accuracy on questions about what was to be forgotten."""

from collections.abc import Container, Iterator, Mapping
from typing import Any

from ilu.runs.run_dir import PROBES

Record = Mapping[str, Any]
"""A recorded recipe, or a part of one."""
FORGET, UTILITY, TASK = "forget_accuracy", "utility", "task_accuracy"
"""What the lab is asked: about what was forgotten, what was kept, and a task that is learned."""
OTHERS = "others_accuracy"
"""Of a relearning attack: accuracy on what it does not show."""
DIRECT = "direct_accuracy"
"""Of the suite elicit: the same questions as all its attacks, simply asked."""
POOLED = "wmdp_acc"
"""Of the suite wmdp: the questions of all its domains."""
ENDINGS = ("_accuracy", "_acc")
SIZES = ("count", "limit", "batch_size")


def forgetting(recipe: Record, scores: Container[str]) -> str | None:
    """The one among ``scores`` that means forgetting, or None where that is not known.

    The lab's is called so, and WMDP is made for it. Questions of the user's may be about anything:
    they are about what was forgotten if the ways of asking (``probes``), which are there to bring
    that back, use the same ones.
    """
    for name in (FORGET, DIRECT, POOLED):
        if name in scores:
            return name
    found = [f"{n}_acc" for n, record in parts(recipe["metrics"]) if is_meant(record, recipe)]
    known = [name for name in found if name in scores]
    return known[0] if len(known) == 1 else None


def is_meant(metric: Any, recipe: Record) -> bool:
    """Whether the questions of a metric are known to be about what was forgotten."""
    questions = metric.get("questions") if isinstance(metric, Mapping) else None
    if not isinstance(questions, Mapping):
        return False
    return questions.get("type") == "WMDP" or holds(recipe.get(PROBES), questions)


def same_forgetting(a: Record, b: Record, metric: str) -> bool:
    """Whether two recipes ask the same under this name, but for how much of it."""
    ours, theirs = (without_sizes(asked(recipe["metrics"], metric)) for recipe in (a, b))
    return metric == FORGET or ours == theirs


def parts(metrics: Record) -> Iterator[tuple[str, Any]]:
    """Every metric and every part of a suite, by name."""
    for name, record in metrics.items():
        inner = record.get("parts") if isinstance(record, Mapping) else None
        yield from inner.items() if isinstance(inner, Mapping) else [(name, record)]


def asked(metrics: Record, metric: str) -> Any:
    """The record behind a score; all of them behind one that has none alone, such as a mean."""
    known = dict(parts(metrics))
    names = (metric, *(metric.removesuffix(ending) for ending in ENDINGS))
    return next((known[name] for name in names if name in known), metrics)


def holds(record: Any, part: Any) -> bool:
    """Whether ``part`` is somewhere in a record, whatever stands around it."""
    if record == part:
        return True
    inner = record.values() if isinstance(record, Mapping) else record
    return isinstance(record, Mapping | list) and any(holds(each, part) for each in inner)


def without_sizes(record: Any) -> Any:
    """A record without what says how many items are used, and how many at a time."""
    if isinstance(record, Mapping):
        return {k: without_sizes(v) for k, v in record.items() if k not in SIZES}
    return record
