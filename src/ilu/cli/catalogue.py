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
FUNCTIONS: dict[tuple[str, ...], str] = {
    ("params", "here", "grad_of", "step"): "gradient rule",
    ("theta", "g"): "reading of w",
    ("first",): "metric",
    ("scores", "reference"): "metric",
    ("scores", "fraction", "per"): "mask",
}
"""Arguments by which a function is known to be a method."""
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
    """What a dataclass is: losses and rules are called, optimisers make steps."""
    if package == "training.optim" or "__call__" not in vars(thing):
        return (
            KINDS[package] if {"refresh", "step", "state", "restore"} <= set(vars(thing)) else None
        )
    if hasattr(thing, "needs_reference"):
        return "invariance loss" if package == "methods.robust" else KINDS[package]
    return {"methods.forget": "weight edit", "methods.robust": "gradient rule"}.get(
        package, KINDS[package]
    )


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
