"""Names of recipes: METHOD[-ROBUST][-ilu|-control]."""

import warnings
from collections.abc import Mapping
from typing import NamedTuple

from ilu.system.declared import Declared, declared
from ilu.system.errors import unknown

ENVIRONMENT = ("ilu", "control")
"""Endings of the recipes that read environments."""
OLD_ENDINGS = {"ahead": "lookahead"}
"""Ending of an older version -> its name today."""


def declared_methods() -> Mapping[str, Declared]:
    """Every method by its name, without importing it."""
    return declared("ilu.methods", "METHODS")


def declared_endings() -> Mapping[str, Declared]:
    """Every kind of robust training by its ending, without importing it."""
    return declared("ilu.methods", "ENDINGS")


class Name(NamedTuple):
    """A recipe's name in parts: a method, robust training, one of ``ENVIRONMENT``."""

    method: str
    robust: str | None = None
    environment: str | None = None

    def __str__(self) -> str:
        return "-".join(part for part in self if part)


def parse_name(name: str) -> Name:
    """Split ``METHOD[-ROBUST][-ilu|-control]``; an unknown name raises with a suggestion."""
    if found := parts_of(name):
        return found
    if found := parts_of(renewed_name(name)):
        warnings.warn(f"the recipe {name} is called {found} now", stacklevel=2)
        return found
    by_name = [str(each) for each in names()]
    raise unknown("recipe", name, by_name, f"ilu methods lists them{explained_endings()}")


def parts_of(name: str) -> Name | None:
    """The parts of a recipe's name; None if there is no such recipe."""
    methods, robust = declared_methods(), (None, *declared_endings())
    possible = ((r, e) for r in robust for e in (None, *ENVIRONMENT))
    tails = ((r, e, "".join(f"-{part}" for part in (r, e) if part)) for r, e in possible)
    found = [Name(name.removesuffix(tail), r, e) for r, e, tail in tails if name.endswith(tail)]
    return next((each for each in found if each.method in methods), None)


def renewed_name(name: str) -> str:
    """The name of today for a recipe name of an older version."""
    return "-".join(OLD_ENDINGS.get(part, part) for part in name.split("-"))


def explained_endings() -> str:
    """The possible endings of a method's name, for an error."""
    robust, environment = ", -".join(declared_endings()), " or -".join(ENVIRONMENT)
    return f"; each may be followed by one of -{robust}, then by -{environment}"


def names() -> list[Name]:
    """Every recipe name."""
    robust = (None, *declared_endings())
    return [Name(m, r, e) for m in declared_methods() for r in robust for e in (None, *ENVIRONMENT)]
