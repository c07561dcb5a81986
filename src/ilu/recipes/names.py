"""What recipes are called: METHOD[-ROBUST][-ilu|-control]."""

from typing import NamedTuple

from ilu.recipes.registry import METHODS
from ilu.recipes.robust import ROBUST, with_control, with_invariance
from ilu.system.errors import unknown

ENVIRONMENT = {"ilu": with_invariance, "control": with_control}
"""Ending of a recipe's name -> what the environments add to its objective."""


class Name(NamedTuple):
    """A recipe's name taken apart: a method, a key of ``ROBUST``, a key of ``ENVIRONMENT``."""

    method: str
    robust: str | None = None
    environment: str | None = None

    def __str__(self) -> str:
        return "-".join(part for part in self if part)


def parse_name(name: str) -> Name:
    """Take ``METHOD[-ROBUST][-ilu|-control]`` apart, or say what was perhaps meant."""
    found = {str(n): n for n in names()}
    if name not in found:
        raise unknown("recipe", name, found, f"{', '.join(METHODS)}{ENDINGS}")
    return found[name]


ENDINGS = f"; behind each also one of -{', -'.join(ROBUST)}, then -{' or -'.join(ENVIRONMENT)}"


def names() -> list[Name]:
    """Every recipe name."""
    return [Name(m, r, e) for m in METHODS for r in (None, *ROBUST) for e in (None, *ENVIRONMENT)]
