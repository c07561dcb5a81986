"""What one run shows, each number with its error over items: read once, then plain arithmetic."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ilu.evals.score import average, difference, independent_mean
from ilu.runs.results.forget_metric import OTHERS, TASK, UTILITY, forgetting, same_forgetting
from ilu.runs.run_dir import PROBES, RunDir
from ilu.types import STAGES, Score

Stages = Mapping[str, Mapping[str, Score]]
"""Stage -> metric -> score, with the value of every item where it was kept."""
RECORDS = (
    "recipe", "environment", "data", "done", "cost", "vectors", "mask", "model", "landscape",
    "representations",
)  # fmt: skip
SHARES = (0.0, *STAGES.values())


@dataclass(frozen=True)
class Measured:
    """A run directory in memory, perhaps joined by ``attackers``, whose attacks became its own.

    ``places``: stage -> the run and the stage in it where the answers are recorded.
    """

    run: RunDir
    recipe: Mapping[str, Any]
    stages: Stages
    training: Sequence[Mapping[str, float]]
    records: Mapping[str, Mapping[str, Any]]
    places: Mapping[str, tuple[RunDir, str]]
    attackers: tuple["Measured", ...] = ()

    @property
    def attacks(self) -> list[str]:
        """Attacks whose end was measured."""
        return [a for a in self.recipe["attacks"] if f"{a}-end" in self.stages]

    @property
    def forget(self) -> str | None:
        """The metric that forget quality is 1 minus of, if one is known to mean it."""
        return forgetting(self.recipe, self.stages.get("after", {}))

    def rows(self, stage: str, metric: str) -> list[dict[str, Any]]:
        """What was recorded of each item."""
        run, recorded = self.places[stage]
        return run.rows(f"examples/{recorded}/{metric}")


def read(run: RunDir) -> Measured:
    """Read every score of a run, finished or not; ValueError where a value is not a number."""
    stages = {stage: with_items(run, stage) for stage in run.stages()}
    for stage, scores in stages.items():
        for metric, score in scores.items():
            if not (math.isfinite(score.value) and math.isfinite(score.stderr)):
                raise ValueError(f"scores/{stage}.json: {metric} is not a number")
    records = {name: run.read(name) for name in RECORDS if run.has(name)}
    attacks = records["recipe"]["attacks"]
    records["curves"] = {a: run.read(f"curves/{a}") for a in attacks if run.has(f"curves/{a}")}
    places = {stage: (run, stage) for stage in stages}
    return Measured(run, records["recipe"], stages, numbers(run.rows("train")), records, places)


def numbers(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """A training log; ValueError where it holds anything else."""
    return [{key: float(value) for key, value in row.items()} for row in rows]


def with_items(run: RunDir, stage: str) -> dict[str, Score]:
    """The scores of a stage with the value of every item."""
    return {
        metric: score._replace(
            items=tuple(row["value"] for row in run.rows(f"examples/{stage}/{metric}"))
        )
        for metric, score in run.scores(stage).items()
    }


def score(m: Measured, stage: str, metric: str) -> Score | None:
    """One score, if it was measured."""
    return m.stages.get(stage, {}).get(metric)


def quality(m: Measured, stage: str, metric: str | None = None) -> Score | None:
    """Forget quality: 1 minus an accuracy, ``m.forget`` if left out, item by item."""
    metric = metric or m.forget
    found = score(m, stage, metric) if metric else None
    if found is None:
        return None
    items = tuple(None if item is None else 1 - item for item in found.items)
    return found._replace(value=1 - found.value, items=items)


def tasks(m: Measured) -> list[str]:
    """Attacks that are downstream tasks: those that measure their own accuracy."""
    return [a for a in m.attacks if score(m, f"{a}-end", TASK)]


def relearning(m: Measured) -> dict[str, Score]:
    """Attack -> forget quality on what it was not shown, for attacks that show a part."""
    found = {a: quality(m, f"{a}-end", OTHERS) for a in m.attacks}
    return {a: s for a, s in found.items() if s}


def beginning(m: Measured, attack: str) -> str:
    """The stage before an attack: its own if it was carried out elsewhere, on fewer questions."""
    own = f"{attack}-start"
    return own if own in m.stages else "after"


def curve(m: Measured, attack: str) -> list[Score]:
    """Forget quality before an attack and at its stages; nothing if one is missing."""
    stages = (beginning(m, attack), *(f"{attack}-{s}" for s in STAGES))
    found = [quality(m, stage) for stage in stages]
    return [s for s in found if s] if all(found) else []


def dense(m: Measured, attack: str) -> dict[int, float]:
    """Forget quality by step, where it was measured more often than at the stages."""
    start, rows = quality(m, beginning(m, attack)), m.records["curves"].get(attack, ())
    whole = [(row["step"], row[m.forget]) for row in rows if m.forget in row and "step" in row]
    found = {int(step): 1 - float(measured["value"]) for step, measured in whole}
    return {0: start.value, **found} if start and found else {}


def area(points: Sequence[Score]) -> Score | None:
    """Area under a curve of forget quality over the share of the fine-tuning, by trapezoids."""
    steps = [b - a for a, b in pairwise(SHARES)]
    return average(points, [(a + b) / 2 for a, b in zip([0, *steps], [*steps, 0], strict=True)])


def probed(m: Measured) -> list[str]:
    """Ways of asking that leave the weights alone."""
    return list(m.stages.get(PROBES, {}))


def ends(m: Measured) -> dict[str, Score]:
    """Attack or probe -> forget quality after it, on what the attack has not shown."""
    shown = relearning(m)
    found = {a: shown.get(a) or quality(m, f"{a}-end") for a in m.attacks}
    found |= {p: quality(m, PROBES, p) for p in probed(m)}
    return {a: s for a, s in found.items() if s}


def worst_case(m: Measured) -> tuple[str, Score] | None:
    """The attack and stage, or the probe, that leave the least forget quality."""
    shown = relearning(m)
    found = [(a, s) for a, s in ends(m).items()]
    found += [(a, s) for a in m.attacks if a not in shown for s in curve(m, a)[1:]]
    return min(found, key=lambda each: each[1].value, default=None)


def comparable(runs: Sequence[Measured]) -> bool:
    """Whether forgetting means the same in all of them, as far as it is known."""
    known = [(m, m.forget) for m in runs if m.forget]
    return all(
        metric == known[0][1] and same_forgetting(m.recipe, known[0][0].recipe, metric)
        for m, metric in known
    )


def gap(m: Measured, never: Measured) -> tuple[str, Score] | None:
    """Forget quality less that of a model that never knew, after the attack where it is least.

    What an attack teaches it teaches both. At 0 nothing came back; without attacks, that of the
    unlearned model as it is. Nothing if the two were asked different questions.
    """
    if not comparable([m, never]):
        return None
    ours, theirs = ({"": quality(each, "after"), **ends(each)} for each in (m, never))
    gaps = {a: difference(s, theirs.get(a)) for a, s in ours.items()}
    found = [(a, s) for a, s in gaps.items() if s]
    attacked = [(a, s) for a, s in found if a]
    return min(attacked or found, key=lambda each: each[1].value, default=None)


def half_way(m: Measured) -> float | None:
    """Forget quality at which half of the lost accuracy is back; None where none was lost."""
    before, after = quality(m, "before"), quality(m, "after")
    if before is None or after is None or before.value >= after.value:
        return None
    return (before.value + after.value) / 2


def samples_to_recover(m: Measured, errors: float = 0.0) -> int | None:
    """Fewest examples of a relearning attack that bring half of the lost accuracy back.

    With ``errors`` of 1 they do so also if every attack left a standard error more forgotten than
    it seems to; with -1 they may if it left one less.
    """
    half = half_way(m)
    if half is None:
        return None
    shown = relearned_from(m)
    enough = (a for a, s in relearning(m).items() if s.value + errors * s.stderr <= half)
    return min((shown[a] for a in enough), default=None)


def relearned_from(m: Measured) -> dict[str, int]:
    """Relearning attack -> how many examples it had."""
    return {a: m.records["data"][f"attack {a}"]["examples"] for a in relearning(m)}


def headline(m: Measured) -> dict[str, Score | None]:
    """The numbers of the headline table."""
    curves = [c for c in (curve(m, a) for a in tasks(m)) if c]
    worst = worst_case(m)
    shown = relearning(m).values()
    return {
        "forget_quality": quality(m, "after"),
        "utility": score(m, "after", UTILITY),
        "utility_change": difference(score(m, "after", UTILITY), score(m, "before", UTILITY)),
        "robust_accuracy": average([s for c in curves for s in c[1:]]),
        "area": average([s for s in map(area, curves) if s]),
        "finetune_accuracy": independent_mean([m.stages[f"{a}-end"][TASK] for a in tasks(m)]),
        "worst_case": worst[1] if worst else None,
        "relearn_forget_quality": min(shown, key=lambda s: s.value, default=None),
    }
