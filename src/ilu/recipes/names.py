"""What recipes are called: METHOD[-ROBUST][-ilu|-control]."""

import warnings
from typing import NamedTuple

from ilu.recipes.registry import endings, methods
from ilu.recipes.robust import with_control, with_invariance
from ilu.system.errors import unknown

ENVIRONMENT = {"ilu": with_invariance, "control": with_control}
"""Ending of a recipe's name -> what the environments add to its objective."""
OLD_ENDINGS = {"ahead": "lookahead"}
"""Ending of an older version -> its name today."""


class Name(NamedTuple):
    """A recipe's name in parts: a method, robust training, a key of ``ENVIRONMENT``."""

    method: str
    robust: str | None = None
    environment: str | None = None

    def __str__(self) -> str:
        return "-".join(part for part in self if part)


def parse_name(name: str) -> Name:
    """Split ``METHOD[-ROBUST][-ilu|-control]``; an unknown name raises with a suggestion."""
    found = {str(n): n for n in names()}
    if name not in found and renewed_name(name) in found:
        warnings.warn(f"the recipe {name} is called {renewed_name(name)} now", stacklevel=2)
        name = renewed_name(name)
    if name not in found:
        raise unknown("recipe", name, found, f"{', '.join(methods())}{explained_endings()}")
    return found[name]


def renewed_name(name: str) -> str:
    """The name of today for a recipe name of an older version."""
    return "-".join(OLD_ENDINGS.get(part, part) for part in name.split("-"))


def explained_endings() -> str:
    """What may follow the name of a method, in words."""
    robust, environment = ", -".join(endings()), " or -".join(ENVIRONMENT)
    return f"; each may be followed by one of -{robust}, then by -{environment}"


def names() -> list[Name]:
    """Every recipe name."""
    robust = (None, *endings())
    return [Name(m, r, e) for m in methods() for r in robust for e in (None, *ENVIRONMENT)]
