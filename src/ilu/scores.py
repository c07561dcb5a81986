"""From the values of items to a score."""

import math
from collections.abc import Sequence

import torch

from ilu.types import Score


def mean_score(items: Sequence[float | None]) -> Score:
    """Mean and standard error of per-item values; None is an item that cannot be scored.

    No item, or none that can be scored, is an error and not a zero; a value that is NaN is one too.
    """
    scored = [item for item in items if item is not None]
    if odd := [i for i, item in enumerate(items, start=1) if item is not None and math.isnan(item)]:
        raise ValueError(f"the value of item {odd[0]} is not a number: is the model damaged?")
    if not scored:
        why = f"none of the {len(items)} items can be scored" if items else "there are no items"
        raise ValueError(f"nothing to score: {why}")
    x = torch.tensor(scored, dtype=torch.float64)
    stderr = x.std().item() / len(scored) ** 0.5 if len(scored) > 1 else 0.0
    unscored = len(items) - len(scored)
    return Score(x.mean().item(), stderr, len(scored), tuple(items), unscored)


def check_limit(limit: int | None) -> None:
    """Refuse to measure on no item, or on all but the last few."""
    if limit is not None and limit < 1:
        raise ValueError(f"a limit of {limit} items: it must be at least 1, or left out")
