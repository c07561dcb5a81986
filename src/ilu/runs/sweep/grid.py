"""A grid of settings as recipes, named by their settings."""

import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from ilu.runs.recipe import Recipe
from ilu.runs.sweep.optuna_search import setting
from ilu.system.atomic import json_hash
from ilu.system.record import describe

LONGEST = 120
"""Characters of a run's name before its hash."""
Grid = Mapping[str, Sequence[str]]


def read_grid(items: Sequence[str]) -> dict[str, list[str]]:
    """``KEY=A,B,C`` or ``KEY=FIRST:STOP`` of whole numbers, as in Python's range."""
    found: dict[str, list[str]] = {}
    for item in items:
        key, _, text = item.partition("=")
        key = setting(key)
        if not key.isidentifier() or not text or "" in (values := spelt_out(text)):
            raise ValueError(
                f"`grid` {item!r}: write KEY=A,B,C or KEY=FIRST:STOP, like lambda=0.1,0.5 seed=0:3"
            )
        if key in found or len(set(values)) < len(values):
            raise ValueError(f"`grid` {item!r}: {key} or one of its values is given twice")
        found[key] = values
    return found


def spelt_out(text: str) -> list[str]:
    """The values of one key."""
    if bounds := re.fullmatch(r"(\d+):(\d+)", text):
        return [str(n) for n in range(int(bounds[1]), int(bounds[2]))] or [""]
    return text.split(",")


def cells(grid: Grid) -> list[dict[str, str]]:
    """Every combination; the last key changes fastest."""
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def run_name(recipe: Recipe, settings: Mapping[str, Any]) -> str:
    """A folder's name: the recipe, what is varied, and a hash of everything.

    Only letters, digits and a few signs, so that no value can name another folder.
    """
    varied = [f"{key}={value}" for key, value in settings.items() if key != "recipe"]
    readable = re.sub(r"[^\w.=+-]", "_", "-".join([recipe.name, *varied]))[:LONGEST]
    return f"{readable.lstrip('.')}-{json_hash(describe(recipe))[:10]}"
