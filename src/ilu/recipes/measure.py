"""What to measure a model by, chosen by name."""

from collections.abc import Mapping, Sequence
from typing import Literal

from ilu.evals.choice import Choice
from ilu.evals.likelihood import AnswerNLL
from ilu.lab.sources import Facts, TaskTest
from ilu.lab.tasks import TASKS
from ilu.recipes.own import column_names, dataset, full
from ilu.sources.choice import ChoiceRows
from ilu.types import Metric

Suite = Literal["lab", "likelihood", "choice"]


def suite_metrics(
    suite: Suite,
    data: str | None,
    columns: Sequence[str],
    truncate: int | None,
    limit: int | None,
) -> Mapping[str, Metric]:
    """The metrics of a suite; ``lab`` brings its own data."""
    if suite == "lab":
        if data is not None:
            raise ValueError("the suite lab brings its own data: leave --data out")
        return lab_metrics(limit)
    if data is None:
        raise ValueError(f"the suite {suite} needs --data: a file or a hub dataset")
    if suite == "likelihood":
        return {"nll": AnswerNLL(dataset(data, columns, truncate), limit)}
    return {"accuracy": Choice(ChoiceRows(full(data), column_names(columns), limit), batch_size=16)}


def lab_metrics(limit: int | None) -> Mapping[str, Metric]:
    """What the lab's model knows of both domains, and how well it does the downstream tasks."""
    facts: dict[str, Metric] = {
        "forget_accuracy": Choice(Facts("agents", count=limit)),
        "utility": Choice(Facts("people", count=limit)),
        "forget_cloze": Choice(Facts("agents", "cloze", count=limit)),
        "utility_cloze": Choice(Facts("people", "cloze", count=limit)),
    }
    return {**facts, **{f"task_{t.name}": Choice(TaskTest(t.name, limit or 200)) for t in TASKS}}
