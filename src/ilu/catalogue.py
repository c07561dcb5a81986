"""Every loss, rule, mask, attack, metric and recipe of the package, found and not registered."""

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from typing import NamedTuple

KINDS = {
    "forget": "forget loss",
    "retain": "retain loss",
    "robust": "robust training",
    "masks": "mask",
    "attacks": "attack",
    "evals": "metric",
}
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
    """Frozen dataclasses with a call, and the masks' loader, in the packages of ``KINDS``."""
    for package, kind in KINDS.items():
        found = importlib.import_module(f"ilu.{package}")
        for info in pkgutil.iter_modules(found.__path__, f"{found.__name__}."):
            for name, thing in vars(importlib.import_module(info.name)).items():
                if getattr(thing, "__module__", "") == info.name and counts(name, thing, package):
                    yield entry(name, kind, thing)


def counts(name: str, thing: object, package: str) -> bool:
    """Whether a name of a module is a method of the package and not one of its parts."""
    if name.startswith("_"):
        return False
    if inspect.isclass(thing):
        return dataclasses.is_dataclass(thing) and "__call__" in vars(thing)
    return package == "masks" and inspect.isfunction(thing)


def recipes() -> Iterator[Entry]:
    """The recipes of the command line; ``-ilu`` and ``-sam`` behind a name are variants."""
    from ilu.recipes.methods import METHODS

    for name, method in METHODS.items():
        yield entry(name, "recipe", method.plan)


def entry(name: str, kind: str, thing: object) -> Entry:
    """Read the line and the paper off the docstring, which is where they are kept."""
    text = inspect.getdoc(thing) or ""
    paper = PAPER.search(text)
    location = f"{getattr(thing, '__module__', '')}:{getattr(thing, '__qualname__', name)}"
    return Entry(name, kind, paper[1] if paper else None, text.splitlines()[0], location)
