"""What a method is: an objective, the weights it trains, and what it wants of the data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ilu.data.counterparts import InContexts, Refused
from ilu.methods.retain.likelihood import JSD, KL, NLL
from ilu.training.objective import Objective, Term
from ilu.types import Edit, Loss, Source

Retain = Literal["nll", "kl", "jsd"]
RETAIN: dict[str, Loss] = {"nll": NLL(), "kl": KL(), "jsd": JSD()}
Beside = Callable[[Source, str, str | None], Source]
"""What a method wants beside each forget example; given its source, the model and its revision."""


def as_it_is(source: Source, model: str, revision: str | None) -> Source:
    """The forget set as it is."""
    return source


def refusals(source: Source, model: str, revision: str | None) -> Source:
    """A refusal beside each example."""
    return Refused(source)


def no_idea(source: Source, model: str, revision: str | None) -> Source:
    """The same refusal, which has no end, beside each example."""
    return Refused(source, ("No idea",), end=False)


def contexts(source: Source, model: str, revision: str | None) -> Source:
    """The same text behind an expert's and a novice's introduction."""
    return InContexts(source)


@dataclass(frozen=True)
class Plan:
    """An objective, which weights it trains (a regular expression; empty for all), and the rest.

    ``beside`` prepares the forget set; ``edit`` is weight arithmetic after the training.
    """

    objective: Objective
    parameters: str = ""
    beside: Beside = as_it_is
    edit: Edit | None = None


@dataclass(frozen=True)
class Method:
    """How a recipe makes its plan, and its default learning rate and steps.

    ``source`` says which of the defaults are published and where; the others are ours. ``settings``
    are further ones: adapters, or all those of a published run with its model and its data.
    """

    plan: Callable[..., Plan]
    lr: float
    steps: int
    source: str
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])


def forgetting(loss: Loss, weight: float, gamma: float, retain_loss: Retain = "nll") -> Plan:
    """A forget term beside the usual retain term, if that has a weight, on all weights."""
    kept = {"retain": Term(RETAIN[retain_loss], on="retain", weight=gamma)} if gamma else {}
    return Plan({"forget": Term(loss, on="forget", weight=weight), **kept})


def beside_refusals(plan: Plan) -> Plan:
    """The same plan with a refusal beside each forget example."""
    return replace(plan, beside=refusals)
