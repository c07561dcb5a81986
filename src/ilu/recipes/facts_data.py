"""Facts as the data of a recipe: in which role which part of a topic is trained on."""

from collections import Counter
from collections.abc import Mapping, Sequence

from ilu.data.facts.selection import Selection, full_name, is_facts, selections
from ilu.data.facts.sources import FactItems, FactQuestions
from ilu.data.facts.topics import Part
from ilu.evals.metrics.multiple_choice import Choice
from ilu.runs.results.forget_metric import FORGET, UTILITY
from ilu.types import Metric


def retained(name: str, forget: Sequence[str]) -> tuple[Selection, ...]:
    """The facts to keep that are trained on: two thirds of each topic that is named alone."""
    return selections(name, forget=forget, usual="train")


def retain_name(name: str, forget: Sequence[str]) -> str:
    """The name of the data to keep, where it is facts with the part that is trained on."""
    return full_name(retained(name, forget)) if is_facts(name) else name


def written_out(name: str, forget: Sequence[str]) -> str:
    """The name of other data, where ``facts:rest`` is written out."""
    return full_name(selections(name, forget=forget)) if is_facts(name) else name


LEFT: Mapping[Part, Part] = {"train": "test", "test": "train", "a": "b", "b": "a"}
"""A part of a topic -> the rest of it."""


def others(trained: Sequence[Selection]) -> list[Selection]:
    """What is left of the topics: the parts that are not trained on."""
    counts = Counter(each.topic for each in trained)
    return [
        Selection(each.topic, LEFT[each.part])
        for each in trained
        if counts[each.topic] == 1 and each.part in LEFT
    ]


def metrics(forget: Sequence[str], retain: str | None, limit: int) -> dict[str, Metric]:
    """Accuracy on held-out questions about what to forget, and about what is kept untrained.

    One question for each fact, at most ``limit``; the suite ``facts`` uses every wording.
    """
    gone = [each for name in forget if is_facts(name) for each in selections(name)]
    kept = others(selections(retain)) if retain and is_facts(retain) else []
    groups = {FORGET: gone, UTILITY: kept}
    return {name: question(chosen, limit) for name, chosen in groups.items() if chosen}


def question(chosen: Sequence[Selection], limit: int) -> Choice:
    """Accuracy on one question for each fact."""
    return Choice(FactQuestions(FactItems(full_name(chosen), limit)), batch_size=16)
