"""Every loss, rule, mask, attack, metric and recipe of the package, found and not registered."""

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

KINDS = {
    "methods.forget": "forget loss",
    "methods.retain": "retain loss",
    "methods.robust": "robust training",
    "training.optim": "optimiser",
    "methods.masks": "mask",
    "attacks": "attack",
    "evals.metrics": "metric",
    "attacks.prompting": "elicitation",
}
OPTIMISER = {"refresh", "step", "state", "restore"}
"""Members by which a class is known to be an optimiser."""
LOSS = ("forward", "reference", "batch")
RULE = ("params", "here", "grad_of", "step")
CALLS: dict[tuple[str, ...], str] = {
    RULE: "gradient rule",
    ("params", "original"): "weight edit",
    ("theta", "g"): "reading of w",
    ("tokenizer",): "data",
}
"""Arguments of a class's call or of a function, by which either is known."""
FUNCTIONS: dict[tuple[str, ...], str] = {
    **CALLS,
    ("first",): "metric",
    ("scores", "reference"): "metric",
    ("scores", "fraction", "per"): "mask",
}
"""The same for functions alone."""
PAPER = re.compile(r"\b(\d{4}\.\d{5})\b")


class Entry(NamedTuple):
    """One method: where it lives, its paper as an arXiv id, and what it does in a line."""

    name: str
    kind: str
    paper: str | None
    summary: str
    location: str


def entries() -> list[Entry]:
    """Everything public that has settings or takes part in an objective, then the recipes."""
    return [*methods(), *recipes()]


def methods() -> Iterator[Entry]:
    """Public names of the packages of ``KINDS`` that are methods and not parts of one."""
    for package in KINDS:
        found = importlib.import_module(f"ilu.{package}")
        for info in pkgutil.iter_modules(found.__path__, f"{found.__name__}."):
            for name, thing in vars(importlib.import_module(info.name)).items():
                kind = kind_of(thing, package)
                if kind and getattr(thing, "__module__", "") == info.name:
                    yield entry(name, kind, thing)


def kind_of(thing: Any, package: str) -> str | None:
    """What a name is: dataclasses with a call, and functions that take their place."""
    if inspect.isclass(thing) and dataclasses.is_dataclass(thing):
        return kind_of_class(thing, package)
    if inspect.isfunction(thing) and not thing.__name__.startswith("_"):
        arguments = tuple(inspect.signature(thing).parameters)
        return FUNCTIONS.get(arguments)
    return None


def kind_of_class(thing: type, package: str) -> str | None:
    """The kind of a dataclass, by the arguments of its call, or the methods of an optimiser."""
    if package == "training.optim":
        return KINDS[package] if vars(thing).keys() >= OPTIMISER else None
    match arguments(thing):
        case None:
            return None
        case found if found == LOSS:
            return "invariance loss" if package == "methods.robust" else KINDS[package]
        case found:
            return CALLS.get(found, KINDS[package])


def arguments(thing: type) -> tuple[str, ...] | None:
    """Names of the arguments of a class's call; None if it has none of its own."""
    call = vars(thing).get("__call__")
    return None if call is None else tuple(inspect.signature(call).parameters)[1:]


def recipes() -> Iterator[Entry]:
    """The recipes of the command line; ``-ilu`` and ``-sam`` behind a name are variants."""
    from ilu.recipes.registry import methods as found_methods

    for name, method in found_methods().items():
        yield entry(name, "recipe", method.recipe)


def entry(name: str, kind: str, thing: object) -> Entry:
    """Read the line and the paper off the docstring, which is where they are kept."""
    text = inspect.getdoc(thing) or ""
    paper = PAPER.search(text)
    location = f"{getattr(thing, '__module__', '')}:{getattr(thing, '__qualname__', name)}"
    return Entry(name, kind, paper[1] if paper else None, text.splitlines()[0], location)


def prose(thing: Any) -> str:
    """A docstring without its list of arguments."""
    text = inspect.getdoc(thing) or ""
    return text.split("\nArgs:")[0].strip()
