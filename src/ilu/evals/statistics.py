"""Intervals and exact tests for the numbers of a report."""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

Z = NormalDist().inv_cdf(0.975)
"""Two-sided 95 % quantile of the normal distribution."""

Interval = tuple[float, float]


def student(freedom: int) -> float:
    """Two-sided 95 % quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


def wilson(share: float, n: int) -> Interval:
    """95 % interval of a share of ``n`` items (Wilson 1927): not empty at 0 and at 1."""
    from scipy.stats import binomtest

    found: Any = binomtest(round(share * n), n).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def sign_test(wins: int, losses: int) -> float:
    """Exact two-sided p of ``wins`` against ``losses`` fair coin flips, ties left out.

    With one yes or no per question this is the exact test of McNemar (1947).
    """
    from scipy.stats import binomtest

    flips = wins + losses
    return float(binomtest(wins, flips).pvalue) if flips else 1.0


def holm(ps: Sequence[float]) -> list[float]:
    """The p of several tests made at once, raised so that one false alarm stays as rare (Holm)."""
    adjusted, floor = [1.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        floor = max(floor, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = floor
    return adjusted


def overlap(a: Interval, b: Interval) -> bool:
    """Whether two intervals have a point in common."""
    return a[0] <= b[1] and b[0] <= a[1]
