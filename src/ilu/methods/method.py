"""What an unlearning method is: an objective, the weights it trains, and the data it needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ilu.data.counterparts import InContexts, Refused
from ilu.methods.retain.likelihood import JSD, KL, NLL
from ilu.training.objective import Objective, Term
from ilu.types import Edit, Loss, Source

Retain = Literal["nll", "kl", "jsd"]
RETAIN: dict[str, Loss] = {"nll": NLL(), "kl": KL(), "jsd": JSD()}
Pairing = Callable[[Source, str, str | None], Source]
"""Adds to each forget example what the loss compares it with.

Its arguments are the forget source, the name of the model and its revision.
"""


def unpaired(source: Source, model: str, revision: str | None) -> Source:
    """The forget set as it is."""
    return source


def with_refusals(source: Source, model: str, revision: str | None) -> Source:
    """The forget set with a refusal for each example."""
    return Refused(source)


def with_one_refusal(source: Source, model: str, revision: str | None) -> Source:
    """The forget set with the same refusal for each example, without an end token."""
    return Refused(source, ("No idea",), end=False)


def with_contexts(source: Source, model: str, revision: str | None) -> Source:
    """The forget set with each text after an expert's and after a novice's introduction."""
    return InContexts(source)


def same_for_all(term: Term, topic: int) -> Term:
    """The forget term of a topic, for losses that treat all topics alike."""
    return term


@dataclass(frozen=True)
class Setup:
    """What the settings of a method lead to.

    ``parameters`` is a regular expression: the weights that are trained, all if empty. ``pairing``
    prepares the forget set. ``edit`` is weight arithmetic after the training. ``for_topic`` makes
    the forget term of one of several topics.
    """

    objective: Objective
    parameters: str = ""
    pairing: Pairing = unpaired
    edit: Edit | None = None
    for_topic: Callable[[Term, int], Term] = same_for_all


@dataclass(frozen=True)
class Method:
    """An entry of ``METHODS`` in a method's file: a recipe function and its default settings.

    ``recipe`` has the method's own settings as arguments, with their published values. ``source``
    says where ``lr``, ``steps`` and these values were published. ``settings`` are further defaults,
    such as adapters, or the model and the data of a published run. ``lab`` are the defaults for the
    lab's small model, and ``lab_ilu`` those that the invariance penalty needs there.
    """

    recipe: Callable[..., Setup]
    lr: float
    steps: int
    source: str
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    lab: Mapping[str, Any] = field(default_factory=dict[str, Any])
    lab_ilu: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def brings_data(self) -> bool:
        """Whether this is a whole published run, with its model and its data."""
        return "model" in self.settings


def forget_and_retain(
    loss: Loss, weight: float, gamma: float, retain_loss: Retain = "nll"
) -> Setup:
    """A forget term, and the usual retain term if its weight ``gamma`` is not 0."""
    retain = {"retain": Term(RETAIN[retain_loss], on="retain", weight=gamma)} if gamma else {}
    return Setup({"forget": Term(loss, on="forget", weight=weight), **retain})


def refusing(setup: Setup) -> Setup:
    """The same setup with a refusal for each forget example."""
    return replace(setup, pairing=with_refusals)
