"""Question by question: right before, wrong after unlearning, right again after an attack."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple

from ilu.runs.report.table import Row
from ilu.runs.results.forget_metric import OTHERS
from ilu.runs.results.run_metrics import (
    Measured,
    ends,
    half_way,
    relearned_from,
    samples_to_recover,
    score,
)
from ilu.types import Score


class Flips(NamedTuple):
    """How many questions were known, how many of them forgotten, how many of those came back."""

    known: int
    forgotten: int
    back: int


def flips(m: Measured, attack: str) -> Flips | None:
    """Follow each question from before unlearning to the end of an attack.

    Nothing after one that shows a part of what was forgotten: what it has told did not come back.
    """
    if m.forget is None or score(m, f"{attack}-end", OTHERS):
        return None
    stages = [score(m, stage, m.forget) for stage in ("before", "after", f"{attack}-end")]
    answers = [s.items for s in stages if s and s.items]
    if len(answers) < 3 or len({len(items) for items in answers}) > 1:
        return None
    known = [rest for before, *rest in zip(*answers, strict=True) if before == 1]
    forgotten = [back for after, back in known if after == 0]
    return Flips(len(known), len(forgotten), sum(back == 1 for back in forgotten))


def came_back(rows: Sequence[Row]) -> dict[str, dict[str, Flips]]:
    """Row -> attack -> what happened to its questions, added up over seeds."""
    found: dict[str, dict[str, Flips]] = {}
    for row in rows:
        for attack in row.first.attacks:
            counts = [each for m in row.runs if (each := flips(m, attack))]
            if counts and not row.baseline:
                total = Flips(*(sum(column) for column in zip(*counts, strict=True)))
                found.setdefault(row.label, {})[attack] = total
    return found


def after_attacks(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Row -> attack -> forget quality at its end, the mean over seeds."""
    return {row.label: means([ends(m) for m in row.runs]) for row in rows}


def recovery(rows: Sequence[Row]) -> dict[str, str]:
    """Row -> fewest examples that brought half of the lost accuracy back, over its seeds.

    In brackets the same if every attack had one standard error more or less.
    """
    found: dict[str, str] = {}
    for row in rows:
        tried = sorted(n for m in row.runs for n in relearned_from(m).values())
        if tried and not row.baseline and any(half_way(m) is not None for m in row.runs):
            low, least, high = (fewest(row, errors) for errors in (-1.0, 0.0, 1.0))
            most = f"more than {tried[-1]}"
            found[row.label] = f"{least or most}{' or fewer' if least == tried[0] else ''}"
            if low != high:
                found[row.label] += f" ({low} to {high or most})"
    return found


def fewest(row: Row, errors: float) -> int | None:
    """Fewest examples over the seeds of a row; None if no attack was strong enough."""
    needed = [samples_to_recover(m, errors) for m in row.runs]
    return min((n for n in needed if n), default=None)


def means(seeds: Sequence[dict[str, Score]]) -> dict[str, float]:
    """Means of what every seed has."""
    shared = [key for key in seeds[0] if all(key in each for each in seeds)]
    return {key: sum(each[key].value for each in seeds) / len(seeds) for key in shared}


def explorer(rows: Sequence[Row], *, limit: int) -> list[dict[str, Any]]:
    """The answers to the first ``limit`` questions of every run, for the page's own script."""
    found = [
        {"run": name(row, m), "metric": metric, **answers(m, metric, stages, limit)}
        for row in sorted(rows, key=lambda row: row.baseline)
        for m in row.runs
        for metric, stages in metrics(m).items()
    ]
    return [each for each in found if each["values"]]


def name(row: Row, m: Measured) -> str:
    """The row, and the seed where it has several."""
    return row.label if len(row.runs) == 1 else f"{row.label}, seed {m.recipe['seed']}"


def metrics(m: Measured) -> dict[str, list[str]]:
    """Metrics measured after unlearning -> stages that have them, from before to ends of attacks.

    Those in between are in the curves.
    """
    ends = (f"{a}-{stage}" for a in m.attacks for stage in ("start", "end"))
    stages = ["before", "after", *ends]
    return {
        metric: [s for s in stages if metric in m.stages.get(s, {})]
        for metric in m.stages.get("after", {})
    }


def answers(m: Measured, metric: str, stages: Sequence[str], limit: int) -> dict[str, Any]:
    """Stage -> values, and whatever else the records say of a question."""
    rows = {stage: m.rows(stage, metric)[:limit] for stage in stages}
    rows = {stage: found for stage, found in rows.items() if found}
    texts = {stage: [text(row) for row in found] for stage, found in rows.items()}
    return {
        "values": {
            stage: compact([row["value"] for row in found]) for stage, found in rows.items()
        },
        "texts": texts if any(any(found) for found in texts.values()) else {},
    }


def text(row: Mapping[str, Any]) -> dict[str, str]:
    """What a record says beside its number: the question, the model's answer."""
    return {k: str(v) for k, v in row.items() if k not in ("item", "value")}


def compact(values: Sequence[float | None]) -> str | list[float | None]:
    """Right and wrong as one character each, where there is nothing else."""
    if all(v in (0, 1, None) for v in values):
        return "".join("-" if v is None else str(int(v)) for v in values)
    return [None if v is None or not isfinite(v) else round(v, 4) for v in values]
