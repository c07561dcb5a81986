"""Whether the questions of a row show forgetting, and which rows have the same questions."""

import json
from collections.abc import Sequence
from typing import Any

from ilu.evals.score import aligned, average, difference
from ilu.evals.statistics import Z, sign_test, wilson
from ilu.runs.results.forget_metric import FORGET, UTILITY, metric_record
from ilu.runs.results.run_metrics import Measured, forgotten, guessing, score
from ilu.system.scores import Score

LEVEL = 0.05
"""Level of the two-sided tests."""


def no_forgetting(runs: Sequence[Measured]) -> str:
    """Why the questions show no forgetting; empty where they do, or where that is unknown."""
    pairs = [(forgotten(m, "before"), forgotten(m, "after")) for m in runs]
    known = [(before, after) for before, after in pairs if before and after]
    if not known:
        return ""
    first, chance = known[0][0], guessing(runs[0])
    if chance is not None and wilson(1 - first.value, first.n)[0] <= chance:
        return (
            f"the original answers {percent(1 - first.value)} of them, which is not significantly "
            f"above guessing ({percent(chance)})"
        )
    if not significantly_more(known):
        return "the accuracy after unlearning is not significantly below that of the original"
    return ""


def significantly_more(pairs: Sequence[tuple[Score, Score]]) -> bool:
    """Whether ``forgotten`` has risen; question by question where the items were recorded.

    A question counts once: its change is summed over seeds.
    """
    tried = [difference(after, before) for before, after in pairs]
    changes = [each for each in tried if each]
    if aligned(changes):
        columns = zip(*(each.items for each in changes), strict=True)
        sums = [sum(v for v in column if v is not None) for column in columns]
        gained, lost = sum(s > 0 for s in sums), sum(s < 0 for s in sums)
        return gained > lost and sign_test(gained, lost) < LEVEL
    mean = average(changes)
    return mean is not None and mean.value - Z * mean.stderr > 0


def percent(share: float) -> str:
    """A share in per cent; one decimal where rounding would give all or nothing."""
    rounded = f"{100 * share:.0f}"
    exact = share in (0, 1) or rounded not in ("0", "100")
    return f"{rounded} %" if exact else f"{100 * share:.1f} %"


def questions_key(m: Measured, metric: str | None) -> str | None:
    """Identity of the questions of a metric; None if it was not measured.

    Records of the lab's forget questions differ between versions: their number identifies them.
    """
    found = score(m, "after", metric) if metric else None
    if found is None or metric is None:
        return None
    record = None if metric == FORGET else without_batch(metric_record(m.recipe["metrics"], metric))
    return json.dumps([metric, record, found.n + found.unscored], sort_keys=True)


def without_batch(record: Any) -> Any:
    """The record of a metric without its batch size, which changes no score."""
    return {k: v for k, v in record.items() if k != "batch_size"} if record else record


def questions_agree(runs: Sequence[Measured], key: str = "") -> bool:
    """Whether the runs answered the same questions of a column: forget questions, or utility."""
    found = {questions_key(m, UTILITY if key == "utility" else m.forget) for m in runs}
    return len(found - {None}) < 2
