"""What hidden states are compared on, and what a landscape is measured by."""

from collections.abc import Mapping, Sequence

from ilu.evals.metrics.likelihood import AnswerNLL
from ilu.evals.metrics.multiple_choice import Choice
from ilu.evals.suite import Suite
from ilu.lab.sources import Documents, Facts
from ilu.models.named import LAB
from ilu.recipes.suite import suite_of
from ilu.recipes.suite_request import SuiteRequest
from ilu.recipes.user_data import dataset
from ilu.types import Source

QUESTIONS, DOCUMENTS = 100, 64
"""Measured at every point on the lab."""


def texts(name: str, columns: Sequence[str]) -> Mapping[str, Source]:
    """The lab's documents about what is forgotten and what is kept, or the user's texts."""
    if name == LAB:
        return {"forget": Documents("agents"), "retain": Documents("people")}
    return {"texts": dataset(name, columns, None)}


def measured(name: str, request: SuiteRequest) -> Suite:
    """A suite; on the lab a small one, with the loss on the documents."""
    suite = suite_of(name, request)  # refuses what it does not read, also on the lab
    if name != "lab":
        return suite
    count = request.limit or QUESTIONS
    return Suite(
        {
            "forget_accuracy": Choice(Facts("agents", count=count)),
            "utility": Choice(Facts("people", count=count)),
            "forget_nll": AnswerNLL(Documents("agents"), DOCUMENTS, batch_size=DOCUMENTS),
        }
    )
