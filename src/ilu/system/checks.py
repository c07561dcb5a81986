"""Checks of single values that several packages share."""

import math


def check_limit(limit: int | None) -> None:
    """ValueError for a limit below 1; a negative one would drop the last items."""
    if limit is not None and limit < 1:
        raise ValueError(f"`limit` {limit}: it must be at least 1, or left out")


def check_at_least_one(name: str, value: int | None) -> None:
    """ValueError for a setting below 1; None is no number."""
    if value is not None and value < 1:
        raise ValueError(f"`{name}` {value}: it must be at least 1")


def check_finite(value: float, what: str) -> float:
    """The value; ValueError for NaN and infinity, which a damaged model gives."""
    if not math.isfinite(value):
        raise ValueError(f"{what} is not a number ({value}): is the model damaged?")
    return value


def check_step(name: str, size: float) -> None:
    """ValueError for a step of a difference quotient that is not above 0."""
    if not size > 0:
        raise ValueError(f"`{name}` {size:g}: it must be above 0")


def two_digits(value: float) -> float:
    """The value with two significant digits, for settings that are chosen by measurement."""
    return float(f"{value:.2g}")
