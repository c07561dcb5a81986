"""What the user says of the data of a suite."""

from dataclasses import dataclass
from typing import Literal

from ilu.data.multiple_choice import Form
from ilu.data.names import place
from ilu.data.text import Dataset, Passages
from ilu.evals.metrics.fluency import CLASSIFIERS
from ilu.models.load import Beside, full_name
from ilu.recipes.user_data import column_names, dataset, full
from ilu.system.checks import check_limit


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the user says of a suite's data; ``split`` chooses among those that a suite brings.

    ``form`` is that of multiple choice; ``nonmembers`` are texts that the model never saw;
    ``classifiers`` say ``class=model``; ``batch_size`` is that of lm-evaluation-harness.
    """

    data: str | None = None
    nonmembers: str | None = None
    form: Form = "letters"
    columns: tuple[str, ...] = ()
    classifiers: tuple[str, ...] = ()
    truncate: int | None = None
    limit: int | None = None
    batch_size: int | Literal["auto"] | None = None
    split: str | None = None

    def __post_init__(self) -> None:
        check_limit(self.limit)


def users(asked: Asked) -> Dataset:
    """The user's data."""
    return dataset(asked.data or "", asked.columns, asked.truncate)


def judges(asked: Asked) -> dict[str, Beside]:
    """The text classifiers asked for, by the class that each is to report."""
    pairs = [given.partition("=") for given in asked.classifiers]
    unknown = [name for name, _, model in pairs if not (name and (model or name in CLASSIFIERS))]
    if unknown:
        raise ValueError(
            f"classifier {unknown[0]!r} is not of the form class=model, like toxic=./judge, "
            f"nor one of {', '.join(CLASSIFIERS)}"
        )
    return {name: Beside(full_name(model or CLASSIFIERS[name])) for name, _, model in pairs}


def passages(asked: Asked, column: str) -> Passages:
    """A column of the user's data."""
    found = place(full(asked.data or ""))
    column = column_names(asked.columns).get(column, column)
    return Passages(found.name, column, found.revision, asked.limit)
