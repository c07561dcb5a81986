"""Overlap of the masks of several runs, and the overlap expected by chance."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from ilu.methods.masks.statistics import Overlap, by_module, overlaps
from ilu.methods.masks.storage import MaskFile
from ilu.runs.mask_stage import FILE
from ilu.runs.report.table import Row

MOST = 6
"""Largest number of masks that are compared pairwise."""


class Agreement(NamedTuple):
    """Overlap of the masks of two rows by module; ``all`` is over all weights."""

    first: str
    second: str
    modules: Mapping[str, Overlap]


def agreements(rows: Sequence[Row]) -> list[Agreement]:
    """Pairwise overlaps of the first ``MOST`` masks that were made for the same weights."""
    found = [(row.label, mask) for row in rows if (mask := mask_file(row))]
    # Read every header first, so that a damaged file raises its own error.
    models = {label: mask.record.get("model") for label, mask in found}
    pairs = combinations(found[:MOST], 2)
    return [
        Agreement(a, b, by_module(overlaps(first, second)))
        for (a, first), (b, second) in pairs
        if models[a] is not None and models[a] == models[b]
    ]


def mask_file(row: Row) -> MaskFile | None:
    """The mask that the first run of a row made or used, if its file exists."""
    given = row.first.recipe.get("mask")
    paths = [row.first.run.path / FILE, *([Path(given)] if isinstance(given, str) else [])]
    return next((MaskFile(path) for path in paths if path.is_file()), None)


def modules(found: Sequence[Agreement]) -> list[str]:
    """All modules of the masks, ``all`` first."""
    return list(dict.fromkeys(["all", *(m for each in found for m in each.modules)]))
