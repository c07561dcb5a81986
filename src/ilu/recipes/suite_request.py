"""What the user chooses of a suite: data, form, split and limits."""

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
class SuiteRequest:
    """What the user chooses of a suite: data, form, split and limits.

    Args:
        split: forget set of tofu (forget01, forget05, or forget10 by default); corpus of muse
            (news by default, books); or news-scal or news-sust, which compare the original with
            models that unlearned growing sets, or one set after another, by the utility they keep;
            domain of wmdp (bio, cyber, chem) or one of the tasks (all by default).
        form: of multiple choice: letters, or cloze, which does not show the options.
        data: file or hub dataset, for the suites without data of their own.
        nonmembers: for the suite membership, texts that the model never saw.
        classifiers: for fluency and toxicity, text classifiers whose mean probability of a class is
            measured, as class=model, such as toxic=./judge: a folder or hub id. Predefined are
            toxic (unitary/toxic-bert, the default of toxicity) and clean (not gibberish).
        columns: renamed columns, as standard=present.
        truncate: cut longer examples to this many tokens; for likelihood, verbatim, membership and
            muse.
        limit: use at most this many items of each set: the first ones, or for wmdp, mmlu,
            truthfulqa, tasks and lab a fixed random sample.
        batch_size: for lm-eval, a number, or auto for the largest that fits; 16 by default.
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


def user_dataset(request: SuiteRequest) -> Dataset:
    """The user's data."""
    return dataset(request.data or "", request.columns, request.truncate)


def judges(request: SuiteRequest) -> dict[str, Beside]:
    """The requested text classifiers, by the class that each reports."""
    pairs = [request_of.partition("=") for request_of in request.classifiers]
    unknown = [name for name, _, model in pairs if not (name and (model or name in CLASSIFIERS))]
    if unknown:
        raise ValueError(
            f"classifier {unknown[0]!r} is not of the form class=model, like toxic=./judge, "
            f"nor one of {', '.join(CLASSIFIERS)}"
        )
    return {name: Beside(full_name(model or CLASSIFIERS[name])) for name, _, model in pairs}


def passages(request: SuiteRequest, column: str) -> Passages:
    """A column of the user's data."""
    source = place(full(request.data or ""))
    column = column_names(request.columns).get(column, column)
    return Passages(source.name, column, source.revision, request.limit)
