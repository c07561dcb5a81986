"""Overlap of the masks of several runs, and the overlap expected by chance."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from ilu.methods.masks.overlap import Overlap
from ilu.runs.report.table import Row
from ilu.runs.run_dir import MASK

MOST = 6
"""Largest number of masks that are compared pairwise."""


class Agreement(NamedTuple):
    """Overlap of the masks of two rows by module; ``all`` is over all weights."""

    first: str
    second: str
    modules: Mapping[str, Overlap]


def agreements(rows: Sequence[Row]) -> list[Agreement]:
    """Pairwise overlaps of the first ``MOST`` masks that were made for the same weights."""
    paths = [(row.label, path) for row in rows if (path := mask_path(row))]
    if not paths:
        return []  # without torch, which reading a mask needs
    from ilu.methods.masks.statistics import by_module, overlaps
    from ilu.methods.masks.storage import MaskFile

    found = [(label, MaskFile(path)) for label, path in paths]
    # Read every header first, so that a damaged file raises its own error.
    models = {label: mask.record.get("model") for label, mask in found}
    pairs = combinations(found[:MOST], 2)
    return [
        Agreement(a, b, by_module(overlaps(first, second)))
        for (a, first), (b, second) in pairs
        if models[a] is not None and models[a] == models[b]
    ]


def mask_path(row: Row) -> Path | None:
    """The mask that the first run of a row made or used, if its file exists."""
    given = row.first.recipe.get("mask")
    paths = [row.first.run.path / MASK, *([Path(given)] if isinstance(given, str) else [])]
    return next((path for path in paths if path.is_file()), None)


def modules(found: Sequence[Agreement]) -> list[str]:
    """All modules of the masks, ``all`` first."""
    return list(dict.fromkeys(["all", *(m for each in found for m in each.modules)]))
