"""What to measure a model by, chosen by name."""

from collections.abc import Mapping, Sequence
from typing import Literal

from ilu.evals.choice import Choice
from ilu.evals.likelihood import AnswerNLL
from ilu.lab.sources import Facts, TaskTest
from ilu.lab.tasks import TASKS
from ilu.recipes.own import column_names, dataset
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
        return lab_metrics()
    if data is None:
        raise ValueError(f"the suite {suite} needs --data: a file or a hub dataset")
    if suite == "likelihood":
        return {"nll": AnswerNLL(dataset(data, columns, truncate), limit)}
    return {"accuracy": Choice(ChoiceRows(data, column_names(columns), limit), batch_size=16)}


def lab_metrics() -> Mapping[str, Metric]:
    """What the lab's model knows of both domains, and how well it does the downstream tasks."""
    facts: dict[str, Metric] = {
        "forget_accuracy": Choice(Facts("agents")),
        "utility": Choice(Facts("people")),
        "forget_cloze": Choice(Facts("agents", "cloze")),
        "utility_cloze": Choice(Facts("people", "cloze")),
    }
    return {**facts, **{f"task_{t.name}": Choice(TaskTest(t.name)) for t in TASKS}}
