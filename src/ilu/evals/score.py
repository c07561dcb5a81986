"""Scores from the values of items, and arithmetic of scores that uses paired items."""

import math
import warnings
from collections.abc import Sequence

import numpy as np

from ilu.system.checks import check_finite
from ilu.system.scores import Score


def mean_score(items: Sequence[float | None]) -> Score:
    """Mean and standard error of per-item values; None is an item that cannot be scored.

    ValueError if no item can be scored, or if a value is not finite.
    """
    scored = [item for item in items if item is not None]
    for i, item in enumerate(items, start=1):
        if item is not None:
            check_finite(item, f"the value of item {i}")
    if not scored:
        why = f"none of the {len(items)} items can be scored" if items else "there are no items"
        raise ValueError(f"nothing to score: {why}")
    x = np.array(scored, dtype=np.float64)
    stderr = float(x.std(ddof=1)) / len(scored) ** 0.5 if len(scored) > 1 else 0.0
    unscored = len(items) - len(scored)
    return Score(float(x.mean()), stderr, len(scored), tuple(items), unscored)


def scored(name: str, items: Sequence[float | None], why: str) -> dict[str, Score]:
    """The mean under its name; empty, with a warning of ``why``, if no item can be scored."""
    if items and all(item is None for item in items):
        warnings.warn(f"{name} is left out: {why}", stacklevel=2)
        return {}
    return {name: mean_score(items)}


def mean_and_error(values: Sequence[float]) -> dict[str, float]:
    """Mean, and its standard error: 0 for a single value."""
    score = mean_score(values)
    return {"mean": score.value, "stderr": score.stderr}


def mean(values: Sequence[float]) -> float:
    """Mean of at least one value."""
    return sum(values) / len(values)


def written(value: float, stderr: float, n: int) -> str:
    """A value with its standard error; a single item has none."""
    return f"{value:.3f} ± {stderr:.3f}" if n > 1 else f"{value:.3f}"


def average(scores: Sequence[Score], weights: Sequence[float] | None = None) -> Score | None:
    """Weighted mean of scores of the same items.

    The error is that of the items' weighted means. Without items it is the mean of the errors, an
    upper bound.
    """
    if not scores:
        return None
    w = [x / sum(weights) for x in weights] if weights else [1 / len(scores)] * len(scores)
    if aligned(scores):
        rows = zip(*(s.items for s in scores), strict=True)
        return mean_score([weighted(row, w) for row in rows])
    value = sum(s.value * x for s, x in zip(scores, w, strict=True))
    stderr = sum(s.stderr * x for s, x in zip(scores, w, strict=True))
    return Score(value, stderr, scores[0].n)


def aligned(scores: Sequence[Score]) -> bool:
    """Whether all scores have a value for each of the same number of items."""
    return len({len(s.items) for s in scores}) == 1 and bool(scores[0].items)


def weighted(values: Sequence[float | None], weights: Sequence[float]) -> float | None:
    """Sum of products; None if a value is None."""
    known = [v for v in values if v is not None]
    if len(known) < len(values):
        return None
    return sum(v * w for v, w in zip(known, weights, strict=True))


def difference(after: Score | None, before: Score | None) -> Score | None:
    """Change of a score: paired where both have items, otherwise with independent errors."""
    if after is None or before is None:
        return None
    if aligned([after, before]):
        pairs = zip(after.items, before.items, strict=True)
        return mean_score([weighted(pair, (1, -1)) for pair in pairs])
    return Score(after.value - before.value, math.hypot(after.stderr, before.stderr), after.n)


def independent_mean(scores: Sequence[Score]) -> Score | None:
    """Mean of scores of different items, such as the test sets of several tasks."""
    if not scores:
        return None
    stderr = math.hypot(*(s.stderr for s in scores)) / len(scores)
    return Score(sum(s.value for s in scores) / len(scores), stderr, sum(s.n for s in scores))
