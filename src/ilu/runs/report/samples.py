"""What a model says to the same few questions before and after unlearning, and after an attack."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ilu.runs.report.table import Row
from ilu.runs.results.run_metrics import Measured, after_relearning, worst_case

COUNT = 3
"""Number of questions shown."""
BEFORE, AFTER = "before", "after unlearning"
"""Titles of the first stages."""
LONGEST = 300
"""Characters of a text that are shown."""
Record = Mapping[str, Any]
"""A recorded item: ``value``, and as far as they were kept ``prompt``, ``options``, ``picked``,
``answer`` and ``generated``."""


class Said(NamedTuple):
    """An answer at one stage: whether it is right, the option picked, the text generated."""

    stage: str
    right: bool | None
    picked: str
    generated: str


class Sample(NamedTuple):
    """A question with its right answer, and what the model said at each stage."""

    prompt: str
    answer: str
    said: Sequence[Said]


def samples(row: Row) -> list[Sample]:
    """The first questions that were right before unlearning and wrong after it, then others.

    Empty where the first run of the row recorded no texts.
    """
    stages = {name: by_prompt(found) for name, found in recorded(row.first).items()}
    stages = {name: found for name, found in stages.items() if found}
    if not stages:
        return []
    last = list(stages.values())[-1]
    prompts = list(next(iter(stages.values())))
    prompts.sort(key=lambda p: (not forgot(stages, p), p not in last))
    return [sample(stages, prompt) for prompt in prompts[:COUNT]]


def recorded(m: Measured) -> dict[str, list[dict[str, Any]]]:
    """Title of a stage -> its items: before, after, and after the worst attack."""
    if m.forget is None:
        return {}
    wanted = {BEFORE: "before", AFTER: "after"}
    worst = worst_case(m)
    if worst:
        wanted[f"after {worst[0]}"] = f"{worst[0]}-end"
    found = {title: m.samples(stage) for title, stage in wanted.items() if stage in m.places}
    if worst and worst[0] in after_relearning(m):  # it trains on the answers to some of them
        last = found.pop(f"after {worst[0]}", [])
        found[f"after {worst[0]}"] = [each for each in last if each.get("trained") is False]
    return found


def by_prompt(items: Sequence[Record]) -> dict[str, Record]:
    """The items with a recorded question, by its text."""
    return {str(item["prompt"]): item for item in items if "prompt" in item}


def forgot(stages: Mapping[str, Mapping[str, Record]], prompt: str) -> bool:
    """Whether a question was right before unlearning and wrong after it."""
    items = [stages.get(name, {}).get(prompt, {}) for name in (BEFORE, AFTER)]
    return [item.get("value") for item in items] == [1, 0]


def sample(stages: Mapping[str, Mapping[str, Record]], prompt: str) -> Sample:
    """One question at every stage that has it."""
    found = {name: items[prompt] for name, items in stages.items() if prompt in items}
    answers = [option(item, "answer") for item in found.values()]
    return Sample(cut(prompt), cut(answers[0]), [said(name, item) for name, item in found.items()])


def said(stage: str, item: Record) -> Said:
    """What was recorded of an answer."""
    right = None if item.get("value") not in (0, 1) else item["value"] == 1
    generated = str(item.get("generated") or "")
    return Said(stage, right, cut(option(item, "picked")), cut(generated))


def option(item: Record, key: str) -> str:
    """The text of an option that is recorded by its number or as it is."""
    value, options = item.get(key), item.get("options") or ()
    if isinstance(value, int) and 0 <= value < len(options):
        value = options[value]
    return "" if value is None else str(value).strip()


def cut(text: str) -> str:
    """The beginning of a text."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}\u2026"
