"""Two models on the same items: is the difference more than chance?"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ilu.extras import need
from ilu.scores import mean_score
from ilu.types import Score

Scores = Mapping[str, Score]


class Flips(NamedTuple):
    """How often only the first, and only the second, of two models is right, and the p-value."""

    first_only: int
    second_only: int
    p: float


class Difference(NamedTuple):
    """Mean difference, second minus first, over ``n`` common items, with a confidence interval."""

    value: float
    low: float
    high: float
    n: int


def mcnemar(first: Score, second: Score) -> Flips:
    """Exact McNemar test of two accuracies on the same questions.

    Only the questions that one of them gets right count: p is the two-sided binomial probability
    of so uneven a split, or one more uneven, at even odds. No such question gives p = 1.
    """
    need("scipy", "evals", "a comparison of two models")
    from scipy.stats import binomtest

    pairs = common(first, second)
    odd = {x for pair in pairs for x in pair} - {0.0, 1.0}
    if odd:
        raise ValueError(f"McNemar's test needs items that are right or wrong, not {min(odd):g}")
    first_only = sum(a > b for a, b in pairs)
    second_only = sum(b > a for a, b in pairs)
    flips = first_only + second_only
    p = float(binomtest(first_only, flips).pvalue) if flips else 1.0
    return Flips(first_only, second_only, p)


def changes(own: Scores, reference: Scores) -> Scores:
    """Each accuracy less the reference's, question by question, and McNemar's p of the flips.

    The error is that of the paired difference, which is what two models on the same questions have.
    """
    found: dict[str, Score] = {}
    for name in (n for n in own if n.endswith("_acc") and n in reference and own[n].items):
        pairs = common(reference[name], own[name])
        flips = mcnemar(reference[name], own[name])
        found[f"{name}_change"] = mean_score([after - before for before, after in pairs])
        found[f"{name}_change_p"] = Score(flips.p, 0.0, flips.first_only + flips.second_only)
    return found


def paired_t(first: Score, second: Score, *, confidence: float = 0.95) -> Difference:
    """Interval of the mean paired difference by Student's t; for many items, or even ones."""
    need("scipy", "evals", "a comparison of two models")
    from scipy.stats import ttest_1samp

    differences = paired_differences(first, second)
    if len(set(differences)) == 1:
        return Difference(differences[0], differences[0], differences[0], len(differences))
    interval = ttest_1samp(differences, 0).confidence_interval(confidence)
    return difference(differences, float(interval.low), float(interval.high))


def paired_bootstrap(
    first: Score, second: Score, *, confidence: float = 0.95, resamples: int = 9999, seed: int = 0
) -> Difference:
    """Interval of the mean paired difference by the percentile bootstrap over items."""
    need("scipy", "evals", "a comparison of two models")
    import numpy as np
    from scipy.stats import bootstrap

    differences = paired_differences(first, second)
    found = bootstrap(
        (differences,),
        np.mean,
        confidence_level=confidence,
        n_resamples=resamples,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return difference(differences, float(found.low), float(found.high))


def paired_differences(first: Score, second: Score) -> list[float]:
    """Second minus first on every item that both have; at least two are needed."""
    differences = [b - a for a, b in common(first, second)]
    if len(differences) < 2:
        raise ValueError(f"{len(differences)} common items: an interval needs at least 2")
    return differences


def difference(differences: Sequence[float], low: float, high: float) -> Difference:
    """The mean of the differences with its interval."""
    return Difference(sum(differences) / len(differences), low, high, len(differences))


def common(first: Score, second: Score) -> list[tuple[float, float]]:
    """Values of the items that both scores have; an item that either cannot score is left out."""
    if len(first.items) != len(second.items):
        raise ValueError(
            f"scores of {len(first.items)} and {len(second.items)} items cannot be paired: "
            "measure both models on the same questions"
        )
    pairs = zip(first.items, second.items, strict=True)
    return [(a, b) for a, b in pairs if a is not None and b is not None]
