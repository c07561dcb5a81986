"""Weights of terms that change during training."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Ramp:
    """A weight that changes linearly from ``start`` to ``stop`` in ``steps`` optimiser steps."""

    start: float
    stop: float
    steps: int

    def __call__(self, step: int) -> float:
        share = min(1.0, step / self.steps) if self.steps else 1.0
        return self.start + (self.stop - self.start) * share


@dataclass(frozen=True)
class Switch:
    """A weight that is ``before`` until optimiser step ``at``, and ``after`` from then on."""

    before: float
    after: float
    at: int

    def __call__(self, step: int) -> float:
        return self.before if step < self.at else self.after


@dataclass(frozen=True)
class Dual:
    """The multiplier of the constraint ``value <= limit``: dual ascent (PDU, arXiv 2506.05314).

    After every step it grows by ``rate`` times the violation, and never falls below 0.
    """

    start: float
    rate: float
    limit: float

    def after(self, weight: float, value: float) -> float:
        """The multiplier after ``weight``."""
        return max(0.0, weight + self.rate * (value - self.limit))
