"""Differences over seeds, with their intervals, as studies report them."""

from collections.abc import Mapping, Sequence

from ilu.evals.score import mean_and_error
from ilu.evals.statistics import Interval, student


def difference(own: Mapping[int, float], other: Mapping[int, float]) -> list[float]:
    """Seed by seed."""
    return [own[s] - other[s] for s in own if s in other]


def interval(values: Sequence[float]) -> Interval | None:
    """95 % interval of the mean over seeds, by Student's t; None for one seed."""
    if len(values) < 2:
        return None
    found = mean_and_error(values)
    half = student(len(values) - 1) * found["stderr"]
    return found["mean"] - half, found["mean"] + half


def low(values: Sequence[float]) -> float | None:
    """Lower end of that interval."""
    found = interval(values)
    return None if found is None else found[0]


def gain(value: float | None, lower: float | None) -> str:
    """``+0.107 (+0.055)``, or nothing where there is nothing to compare with."""
    if value is None:
        return ""
    return f"{value:+.3f}" if lower is None else f"{value:+.3f} ({lower:+.3f})"
