"""Relearning from one half of the facts, measured on the other half, for every kind of data."""

from dataclasses import replace

from ilu.attacks.finetune import FineTune
from ilu.data import rtt
from ilu.data.facts.selection import Selection, full_name, is_facts, selections
from ilu.data.facts.sources import FactDocuments
from ilu.data.multiple_choice import ChoiceRows
from ilu.data.splits import HalfOfExamples, Joined
from ilu.data.stream import Feed
from ilu.data.text import Dataset
from ilu.evals.metrics.likelihood import AnswerNLL
from ilu.evals.metrics.multiple_choice import Choice
from ilu.recipes import lab
from ilu.recipes.facts_data import LEFT, question
from ilu.recipes.settings import AttackSettings
from ilu.recipes.user_data import dataset
from ilu.runs.results.forget_metric import OTHERS
from ilu.training.fit import Optim
from ilu.types import Metric, Source

ASKED = 200
"""Most questions or examples on which the other half is measured."""


def half_attack(half: str, settings: AttackSettings, optim: Optim) -> FineTune:
    """Fine-tuning on the documents of a half, with the other half as its goal.

    ``half`` is a or b, and for the data of RTT the number of the split that is not trained on.
    """
    forget = settings.forget
    if forget is None:
        attack = lab.relearn_half(half_named(half), optim.steps)
        size = min(settings.batch_size, attack.feed.batch_size)
        return replace(attack, feed=Feed(attack.feed.source, size), optim=optim)
    if rtt.is_rtt(forget):
        source, goal = other_splits(forget, half)
    elif is_facts(forget):
        source, goal = half_of_facts(forget, half_named(half), settings.truncate)
    else:
        source, goal = half_of_file(forget, half_named(half), settings)
    return FineTune(Feed(source, settings.batch_size), optim, goal)


def half_named(half: str) -> lab.LabHalf:
    """Parse a or b."""
    if half == "a" or half == "b":
        return half
    raise ValueError("name the half that is trained on, rtt:a or rtt:b; the other one is measured")


def other_splits(forget: str, half: str) -> tuple[Source, dict[str, Metric]]:
    """All splits of RTT data but one, and the questions of that one without options."""
    count = rtt.number_of_splits(forget)
    if not half.isdecimal() or int(half) >= count:
        raise ValueError(
            f"{forget} has the splits 0 to {count - 1}: name the one that is measured, as in rtt:0"
        )
    chosen = [Dataset(rtt.documents(forget, i)) for i in range(count) if i != int(half)]
    asked = ChoiceRows(rtt.questions(forget, int(half)), limit=ASKED, form="cloze")
    return Joined(tuple(chosen)), {OTHERS: Choice(asked, batch_size=16)}


def half_of_facts(
    forget: str, half: lab.LabHalf, truncate: int | None
) -> tuple[Source, dict[str, Metric]]:
    """One half of each topic, and a held-out question about each fact of the other half."""
    topics = selections(forget)
    if any(each.part != "all" for each in topics):
        raise ValueError(f"{forget} names parts of topics: only a whole topic has two halves")
    trained, asked = (
        [Selection(each.topic, part) for each in topics] for part in (half, LEFT[half])
    )
    goal: dict[str, Metric] = {OTHERS: question(asked, ASKED)}
    return FactDocuments(full_name(trained), truncate), goal


def half_of_file(
    forget: str, half: lab.LabHalf, settings: AttackSettings
) -> tuple[Source, dict[str, Metric]]:
    """About half of the user's examples, by a hash of each, and the loss on the other half."""
    data = dataset(forget, settings.attack_columns, settings.truncate)
    trained, left = (
        HalfOfExamples(data, part)
        for part in (("test", "validation") if half == "a" else ("validation", "test"))
    )
    return trained, {"others_nll": AnswerNLL(left, ASKED)}
