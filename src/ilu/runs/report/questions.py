"""Answers question by question: before unlearning, after it, and after an attack."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple

from ilu.runs.report.samples import option
from ilu.runs.report.table import Row
from ilu.runs.results.forget_metric import OTHERS
from ilu.runs.results.run_metrics import (
    Measured,
    forgotten_at_end,
    recovery_threshold,
    relearning_examples,
    samples_to_recover,
    score,
)
from ilu.system.scores import Score

PICKED = ("picked", "answer")
"""Keys of recorded items that may name an option by its number."""


class Flips(NamedTuple):
    """Questions right before unlearning, of these wrong after it, of these right after attack."""

    known: int
    forgotten: int
    recovered: int


def flips(m: Measured, attack: str) -> Flips | None:
    """Count what happened to each question from before unlearning to the end of an attack.

    None for relearning attacks: they train on the answers to some of the questions.
    """
    if m.forget is None or score(m, f"{attack}-end", OTHERS):
        return None
    stages = [score(m, stage, m.forget) for stage in ("before", "after", f"{attack}-end")]
    answers = [s.items for s in stages if s and s.items]
    if len(answers) < 3 or len({len(items) for items in answers}) > 1:
        return None
    known = [rest for before, *rest in zip(*answers, strict=True) if before == 1]
    forgotten = [attacked for after, attacked in known if after == 0]
    return Flips(len(known), len(forgotten), sum(attacked == 1 for attacked in forgotten))


def recovered(rows: Sequence[Row]) -> dict[str, dict[str, Flips]]:
    """Row -> attack -> counts of its questions, summed over seeds."""
    found: dict[str, dict[str, Flips]] = {}
    for row in rows:
        for attack in row.first.attacks:
            counts = [each for m in row.runs if (each := flips(m, attack))]
            if counts and not row.baseline:
                total = Flips(*(sum(column) for column in zip(*counts, strict=True)))
                found.setdefault(row.label, {})[attack] = total
    return found


def after_attacks(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Row -> attack -> forgotten at its end, mean over seeds."""
    return {row.label: means([forgotten_at_end(m) for m in row.runs]) for row in rows}


def recovery(rows: Sequence[Row]) -> dict[str, str]:
    """Row -> fewest examples that recovered half of the lost accuracy, over its seeds.

    In brackets: the same with every value one standard error lower and higher.
    """
    found: dict[str, str] = {}
    for row in rows:
        tried = sorted(n for m in row.runs for n in relearning_examples(m).values())
        if tried and not row.baseline and any(recovery_threshold(m) is not None for m in row.runs):
            low, least, high = (fewest(row, errors) for errors in (-1.0, 0.0, 1.0))
            most = f"more than {tried[-1]}"
            found[row.label] = f"{least or most}{' or fewer' if least == tried[0] else ''}"
            if low != high:
                found[row.label] += f" ({low} to {high or most})"
    return found


def fewest(row: Row, errors: float) -> int | None:
    """Fewest examples over the seeds of a row; None if no attack recovered half."""
    needed = [samples_to_recover(m, errors) for m in row.runs]
    return min((n for n in needed if n), default=None)


def means(seeds: Sequence[dict[str, Score]]) -> dict[str, float]:
    """Mean over seeds of every key that all seeds have."""
    shared = [key for key in seeds[0] if all(key in each for each in seeds)]
    return {key: sum(each[key].value for each in seeds) / len(seeds) for key in shared}


def explorer(rows: Sequence[Row], *, limit: int) -> list[dict[str, Any]]:
    """The answers to the first ``limit`` questions of every run, for the script of the page."""
    found = [
        {"run": name(row, m), "metric": title(m, metric), **answers(m, metric, stages, limit)}
        for row in sorted(rows, key=lambda row: row.baseline)
        for m in row.runs
        for metric, stages in metrics(m).items()
    ]
    return [each for each in found if each["values"]]


def name(row: Row, m: Measured) -> str:
    """The label of the row, with the seed if the row has several."""
    return row.label if len(row.runs) == 1 else f"{row.label}, seed {m.recipe['seed']}"


def title(m: Measured, metric: str) -> str:
    """A metric above its single answers, which are marked as right or wrong."""
    return "questions on what was to be forgotten" if metric == m.forget else metric


def metrics(m: Measured) -> dict[str, list[str]]:
    """Metric measured after unlearning -> its stages, without the middle of attacks."""
    ends = (f"{a}-{stage}" for a in m.attacks for stage in ("start", "end"))
    stages = ["before", "after", *ends]
    return {
        metric: [s for s in stages if metric in m.stages.get(s, {})]
        for metric in m.stages.get("after", {})
    }


def answers(m: Measured, metric: str, stages: Sequence[str], limit: int) -> dict[str, Any]:
    """Values and recorded texts of the questions, stage by stage."""
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
    """The recorded texts of an item: the question, its options, the model's answer."""
    shown = {k: v for k, v in row.items() if k not in ("item", "value") and v is not None}
    return {k: option(row, k) if k in PICKED else joined(v) for k, v in shown.items()}


def joined(value: Any) -> str:
    """A text, or several of them in one line."""
    return " | ".join(str(v).strip() for v in value) if isinstance(value, list) else str(value)


def compact(values: Sequence[float | None]) -> str | list[float | None]:
    """A string with one character per answer if all are right or wrong; otherwise a list."""
    if all(v in (0, 1, None) for v in values):
        return "".join("-" if v is None else str(int(v)) for v in values)
    return [None if v is None or not isfinite(v) else round(v, 4) for v in values]
