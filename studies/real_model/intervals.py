"""Means with 95 % intervals over seeds and facts, by the bootstrap."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

DRAWS = 2000


class Place(NamedTuple):
    """One run of a way: which topic it forgot, and its seed."""

    topic: str
    seed: int


Values = Mapping[Place, Sequence[float]]
"""One value for each fact of the topic, in the same order for every seed and way."""


def interval(values: Values, seed: int = 0) -> list[float]:
    """[mean, low, high]: mean over facts, then over runs; both are drawn with replacement.

    The same facts of a topic are drawn for all of its seeds. One seed leaves only the facts.
    ValueError without runs, or for a run without facts.
    """
    if not values or not all(values.values()):
        raise ValueError(f"an interval needs values of every run: {dict(values)}")
    rng = np.random.default_rng(seed)
    arrays = {place: np.asarray(each, dtype=float) for place, each in values.items()}
    found = [float(np.mean([each.mean() for each in arrays.values()]))]
    draws = [drawn(arrays, rng) for _ in range(DRAWS)]
    return [round(x, 4) for x in (*found, *np.quantile(draws, (0.025, 0.975)).tolist())]


def drawn(arrays: Mapping[Place, np.ndarray], rng: np.random.Generator) -> float:
    """The mean of one draw of seeds and facts."""
    topics = sorted({place.topic for place in arrays})
    means: list[float] = []
    for topic in topics:
        runs = [each for place, each in arrays.items() if place.topic == topic]
        facts = rng.integers(len(runs[0]), size=len(runs[0]))
        means += [runs[i][facts].mean() for i in rng.integers(len(runs), size=len(runs))]
    return float(np.mean(means))


def gains(ours: Values, theirs: Values) -> Values:
    """The differences fact by fact, for the runs that both have."""
    both = [place for place in ours if place in theirs]
    return {p: [a - b for a, b in zip(ours[p], theirs[p], strict=True)] for p in both}
