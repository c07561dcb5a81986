"""Significance of the difference between two models on the same questions."""

from collections.abc import Mapping
from typing import NamedTuple

from ilu.evals.score import mean_score
from ilu.evals.statistics import sign_test
from ilu.system.scores import Score

Scores = Mapping[str, Score]


class Flips(NamedTuple):
    """How many questions only the first or only the second model answers right, and the p-value."""

    first_only: int
    second_only: int
    p: float


def mcnemar(first: Score, second: Score) -> Flips:
    """Exact McNemar test of two accuracies on the same questions.

    Only questions that exactly one model gets right count: p is the two-sided binomial probability
    of a split at least this uneven, at even odds. Without such questions p = 1.
    """
    pairs = common(first, second)
    odd = {x for pair in pairs for x in pair} - {0.0, 1.0}
    if odd:
        raise ValueError(f"McNemar's test needs items that are right or wrong, not {min(odd):g}")
    first_only = sum(a > b for a, b in pairs)
    second_only = sum(b > a for a, b in pairs)
    return Flips(first_only, second_only, sign_test(first_only, second_only))


def changes(own: Scores, reference: Scores) -> Scores:
    """Each accuracy minus that of the reference, paired by question, and McNemar's p.

    The error is that of the paired difference.
    """
    scores: dict[str, Score] = {}
    both = (n for n in own if n.endswith(("_acc", "_acc_norm")) and n in reference)
    for name in (n for n in both if own[n].items):
        pairs = common(reference[name], own[name])
        flips = mcnemar(reference[name], own[name])
        scores[f"{name}_change"] = mean_score([after - before for before, after in pairs])
        scores[f"{name}_change_p"] = Score(flips.p, 0.0, flips.first_only + flips.second_only)
    return scores


def common(first: Score, second: Score) -> list[tuple[float, float]]:
    """Pairs of values of each item, without the items that one of the two could not score."""
    if len(first.items) != len(second.items):
        raise ValueError(
            f"scores of {len(first.items)} and {len(second.items)} items cannot be paired: "
            "measure both models on the same questions"
        )
    pairs = zip(first.items, second.items, strict=True)
    return [(a, b) for a, b in pairs if a is not None and b is not None]
