"""Intervals and exact tests for the numbers of a report, by arithmetic alone."""

from collections.abc import Sequence
from math import comb

Z = 1.959964
"""Two-sided 95 % quantile of the normal distribution."""
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Two-sided 95 % quantiles of Student's t, for 1 to 10 degrees of freedom."""

Interval = tuple[float, float]


def student(freedom: int) -> float:
    """Two-sided 95 % quantile of Student's t; beyond the table its expansion in 1/f."""
    if freedom <= len(STUDENT):
        return STUDENT[freedom - 1]
    first = (Z**3 + Z) / 4
    second = (5 * Z**5 + 16 * Z**3 + 3 * Z) / 96
    return Z + first / freedom + second / freedom**2


def wilson(share: float, n: int) -> Interval:
    """95 % interval of a share of ``n`` items (Wilson 1927): not empty at 0 and at 1."""
    middle = share + Z**2 / (2 * n)
    half = Z * (share * (1 - share) / n + Z**2 / (4 * n**2)) ** 0.5
    scale = 1 + Z**2 / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def sign_test(wins: int, losses: int) -> float:
    """Exact two-sided p of ``wins`` against ``losses`` fair coin flips, ties left out.

    With one yes or no per question this is the exact test of McNemar (1947).
    """
    flips = wins + losses
    tail = sum(comb(flips, k) for k in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2**flips)


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
