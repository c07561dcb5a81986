"""The data and the classifiers of a suite, as the user chose them."""

from ilu.data.facts.sources import FactDocuments
from ilu.data.multiple_choice import ChoiceRows
from ilu.data.names import place
from ilu.data.text import Dataset, Passages
from ilu.evals.metrics.fluency import CLASSIFIERS
from ilu.models.load import SecondModel
from ilu.models.named import full_name
from ilu.recipes.suite_request import SuiteRequest
from ilu.recipes.user_data import column_names, dataset, full


def user_dataset(request: SuiteRequest) -> Dataset | FactDocuments:
    """The user's data."""
    return dataset(request.data or "", request.data_columns, request.truncate)


def choice_rows(request: SuiteRequest) -> ChoiceRows:
    """The user's questions."""
    return ChoiceRows(
        full(request.data or ""), column_names(request.data_columns), request.limit, request.form
    )


def judges(request: SuiteRequest) -> dict[str, SecondModel]:
    """The text classifiers of the request, by the class whose probability they give."""
    pairs = [given.partition("=") for given in request.classifiers]
    unknown = [name for name, _, model in pairs if not (name and (model or name in CLASSIFIERS))]
    if unknown:
        raise ValueError(
            f"classifier {unknown[0]!r} is not of the form class=model, like toxic=./judge, "
            f"nor one of {', '.join(CLASSIFIERS)}"
        )
    return {name: SecondModel(full_name(model or CLASSIFIERS[name])) for name, _, model in pairs}


def passages(request: SuiteRequest, column: str) -> Passages:
    """A column of the user's data."""
    found = place(full(request.data or ""))
    column = column_names(request.data_columns).get(column, column)
    return Passages(found.name, column, found.revision, request.limit)
