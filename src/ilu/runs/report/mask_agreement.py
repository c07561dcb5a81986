"""How far the masks of several runs agree, beside what chance would give."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from ilu.methods.masks.statistics import Overlap, by_module, overlaps
from ilu.methods.masks.storage import MaskFile
from ilu.runs.mask_stage import FILE
from ilu.runs.report.table import Row

MOST = 6
"""Masks that are compared, each with each."""


class Agreement(NamedTuple):
    """Two rows whose masks are for the same weights: their overlap by module, and in ``all``."""

    first: str
    second: str
    modules: Mapping[str, Overlap]


def agreements(rows: Sequence[Row]) -> list[Agreement]:
    """The first few masks, each with each; a file that is gone is left out."""
    found = [(row.label, mask) for row in rows if (mask := mask_file(row))]
    # Opened once and before all else, so that a damaged one is known for what it is.
    models = {label: mask.record.get("model") for label, mask in found}
    pairs = combinations(found[:MOST], 2)
    return [
        Agreement(a, b, by_module(overlaps(first, second)))
        for (a, first), (b, second) in pairs
        if models[a] is not None and models[a] == models[b]
    ]


def mask_file(row: Row) -> MaskFile | None:
    """The mask that the first run of a row made or was given, if it still lies there."""
    given = row.first.recipe.get("mask")
    paths = [row.first.run.path / FILE, *([Path(given)] if isinstance(given, str) else [])]
    return next((MaskFile(path) for path in paths if path.is_file()), None)


def modules(found: Sequence[Agreement]) -> list[str]:
    """Every module that one of the masks names, ``all`` first."""
    return list(dict.fromkeys(["all", *(m for each in found for m in each.modules)]))
