"""Two models on the same items: is the difference more than chance?"""

from collections.abc import Mapping
from typing import NamedTuple

from ilu.evals.score import mean_score
from ilu.evals.statistics import sign_test
from ilu.scores import Score

Scores = Mapping[str, Score]


class Flips(NamedTuple):
    """How often only the first, and only the second, of two models is right, and the p-value."""

    first_only: int
    second_only: int
    p: float


def mcnemar(first: Score, second: Score) -> Flips:
    """Exact McNemar test of two accuracies on the same questions.

    Only the questions that one of them gets right count: p is the two-sided binomial probability
    of so uneven a split, or one more uneven, at even odds. No such question gives p = 1.
    """
    pairs = common(first, second)
    odd = {x for pair in pairs for x in pair} - {0.0, 1.0}
    if odd:
        raise ValueError(f"McNemar's test needs items that are right or wrong, not {min(odd):g}")
    first_only = sum(a > b for a, b in pairs)
    second_only = sum(b > a for a, b in pairs)
    return Flips(first_only, second_only, sign_test(first_only, second_only))


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


def common(first: Score, second: Score) -> list[tuple[float, float]]:
    """Values of the items that both scores have; an item that either cannot score is left out."""
    if len(first.items) != len(second.items):
        raise ValueError(
            f"scores of {len(first.items)} and {len(second.items)} items cannot be paired: "
            "measure both models on the same questions"
        )
    pairs = zip(first.items, second.items, strict=True)
    return [(a, b) for a, b in pairs if a is not None and b is not None]
