"""Names of recipes: METHOD[-ROBUST][-ilu|-control][-undo]."""

import warnings
from collections.abc import Mapping
from functools import cache
from itertools import product
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


def declared_stages() -> Mapping[str, Declared]:
    """Every stage after the unlearning by its ending, without importing it."""
    return declared("ilu.methods", "STAGES")


class Name(NamedTuple):
    """A recipe's name in parts: a method, robust training, one of ``ENVIRONMENT``, a stage."""

    method: str
    robust: str | None = None
    environment: str | None = None
    stage: str | None = None

    def __str__(self) -> str:
        return "-".join(part for part in self if part)


def parse_name(name: str) -> Name:
    """Split ``METHOD[-ROBUST][-ilu|-control][-undo]``; an unknown name raises with a suggestion."""
    if found := parts_of(name):
        return found
    if found := parts_of(renewed_name(name)):
        warnings.warn(f"the recipe {name} is called {found} now", stacklevel=2)
        return found
    raise unknown("recipe", name, recipes(), f"ilu methods lists them{explained_endings()}")


def parts_of(name: str) -> Name | None:
    """The parts of a recipe's name; None if there is no such recipe."""
    methods, robust, stages = declared_methods(), declared_endings(), declared_stages()
    for tail in product((None, *robust), (None, *ENVIRONMENT), (None, *stages)):
        ending = "".join(f"-{part}" for part in tail if part)
        if name.endswith(ending) and name.removesuffix(ending) in methods:
            return Name(name.removesuffix(ending), *tail)
    return None


def renewed_name(name: str) -> str:
    """The name of today for a recipe name of an older version."""
    return "-".join(OLD_ENDINGS.get(part, part) for part in name.split("-"))


def explained_endings() -> str:
    """The possible endings of a method's name, for an error."""
    robust, environment = ", -".join(declared_endings()), " or -".join(ENVIRONMENT)
    stages = " or -".join(declared_stages())
    return f"; each may be followed by one of -{robust}, then by -{environment}, then by -{stages}"


def names() -> list[Name]:
    """Every recipe name."""
    return list(recipes().values())


def recipes() -> Mapping[str, Name]:
    """Every recipe name in parts."""
    declarations = (declared_methods(), declared_endings(), declared_stages())
    return combined(*map(tuple, declarations))


@cache
def combined(
    methods: tuple[str, ...], robust: tuple[str, ...], stages: tuple[str, ...]
) -> Mapping[str, Name]:
    """The recipe names of these methods and endings, in parts."""
    parts = methods, (None, *robust), (None, *ENVIRONMENT), (None, *stages)
    return {str(name): name for name in (Name(*each) for each in product(*parts))}
