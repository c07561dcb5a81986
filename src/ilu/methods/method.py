"""An unlearning method: an objective, the weights to train, and the data it needs."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from ilu.data.counterparts import InContexts, Refused
from ilu.methods.retain.likelihood import JSD, KL, NLL
from ilu.training.objective import Objective, Term
from ilu.types import Edit, Loss, Source

Retain = Literal["nll", "kl", "jsd"]
RETAIN: dict[str, Loss] = {"nll": NLL(), "kl": KL(), "jsd": JSD()}
Function = TypeVar("Function", bound=Callable[..., Any])
Pairing = Callable[[Source, str, str | None], Source]
"""Adds to each forget example the counterparts that the loss needs.

Its arguments are the forget source, the name of the model and its revision.
"""


def unpaired(source: Source, model: str, revision: str | None) -> Source:
    """The unchanged forget set."""
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
    """The unchanged forget term, for losses that treat all topics alike."""
    return term


@dataclass(frozen=True)
class Folds:
    """Stages of the training: stage i forgets folds 1 to i and retains the later ones.

    ``together`` adjacent examples are in the same fold. ``gamma`` is the weight of the loss on the
    folds that are retained.
    """

    count: int
    together: int = 1
    gamma: float = 1.0

    def __post_init__(self) -> None:
        if self.count < 2 or self.together < 1:
            raise ValueError(
                f"folds {self.count}, fold_group {self.together}: at least 2 folds of groups of at "
                "least 1 example are needed"
            )


@dataclass(frozen=True)
class Setup:
    """The objective of a method with its settings applied, and what else it changes.

    ``parameters`` is a regular expression for the names of the trained weights; empty means all.
    ``pairing`` adds counterparts to the forget set. ``edit`` is weight arithmetic after training.
    ``for_topic`` returns the forget term of one of several topics. ``folds`` divides each forget
    set into folds that are forgotten one after the other.
    """

    objective: Objective
    parameters: str = ""
    pairing: Pairing = unpaired
    edit: Edit | None = None
    for_topic: Callable[[Term, int], Term] = same_for_all
    folds: Folds | None = None


@dataclass(frozen=True)
class Method:
    """An entry of ``METHODS`` in a method's file: a recipe function and its default settings.

    The arguments of ``recipe`` are the method's settings; their defaults are the published values.
    ``source`` cites the publications of ``lr``, ``steps`` and these values. ``settings`` has
    further defaults, such as adapters, or the model and the data of a published run.

    For a model that no publication is about, ``measured`` replaces published defaults by values
    that were measured on real models, ``by_depth`` by functions of the number of decoder blocks,
    ``adapters`` where low-rank adapters are trained, and ``environment`` with the invariance
    penalty or its control. ``lab`` has the defaults for the lab's
    small model, and ``lab_ilu`` those with the invariance penalty there.
    """

    recipe: Callable[..., Setup]
    lr: float
    steps: int
    source: str
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    measured: Mapping[str, Any] = field(default_factory=dict[str, Any])
    by_depth: Mapping[str, Callable[[int], Any]] = field(default_factory=dict[str, Any])
    adapters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    environment: Mapping[str, Any] = field(default_factory=dict[str, Any])
    lab: Mapping[str, Any] = field(default_factory=dict[str, Any])
    lab_ilu: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def is_published_run(self) -> bool:
        """Whether this is a published run, with its own model and data."""
        return "model" in self.settings


def with_settings(text: str) -> Callable[[Function], Function]:
    """A decorator that adds ``text``, the help of shared settings, to a recipe's docstring."""

    def documented(recipe: Function) -> Function:
        recipe.__doc__ = f"{inspect.cleandoc(recipe.__doc__ or '')}\n{text}"
        return recipe

    return documented


def forget_and_retain(
    loss: Loss, weight: float, gamma: float, retain_loss: Retain = "nll"
) -> Setup:
    """A forget term, and a retain term if its weight ``gamma`` is not 0."""
    retain = {"retain": Term(RETAIN[retain_loss], on="retain", weight=gamma)} if gamma else {}
    return Setup({"forget": Term(loss, on="forget", weight=weight), **retain})


def refusing(setup: Setup) -> Setup:
    """The same setup with a refusal for each forget example."""
    return replace(setup, pairing=with_refusals)
