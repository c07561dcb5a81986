"""Names of facts as datasets: ``facts:TOPIC``, ``facts:TOPIC/a,TOPIC``, ``facts:rest``."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ilu.data.facts.topics import PARTS, Part, TopicFact, load_topic, topic_names
from ilu.system.errors import unknown

PREFIX = "facts:"
REST = "rest"
"""All topics but those to forget."""


class Selection(NamedTuple):
    """A part of a topic."""

    topic: str
    part: Part

    def facts(self) -> list[TopicFact]:
        """The facts of the part."""
        return load_topic(self.topic).part(self.part)

    def __str__(self) -> str:
        return self.topic if self.part == "all" else f"{self.topic}/{self.part}"


def is_facts(name: str) -> bool:
    """Whether a name of a dataset means facts of this package."""
    return name == PREFIX[:-1] or name.startswith(PREFIX)


def selections(
    name: str, *, forget: Sequence[str] | None = None, usual: Part = "all"
) -> tuple[Selection, ...]:
    """The parts of topics that a name means; several have a comma or a plus sign between.

    ``usual`` is the part of a topic that is named alone. ``forget`` has the names of the datasets
    to forget, which ``rest`` leaves out; without it, ``rest`` raises ValueError.
    """
    found: list[Selection] = []
    for item in re.split(r"[,+]", name.removeprefix(PREFIX[:-1]).removeprefix(":")):
        topic, slash, part = item.strip().partition("/")
        chosen = part_of(part, name) if slash else usual
        topics = remaining(forget, name) if topic == REST else [known_topic(topic)]
        found += [Selection(each, chosen) for each in topics]
    check_disjoint(found, name)
    return tuple(found)


def known_topic(name: str) -> str:
    """The name of a topic; any other raises ValueError with a suggestion."""
    if name not in topic_names():
        raise unknown("topic", name, (*topic_names(), REST))
    return name


def part_of(text: str, name: str) -> Part:
    """The part of a topic that is named after the slash."""
    for part in PARTS:
        if text == part:
            return part
    raise ValueError(f"{name!r}: a topic has no part {text!r}. Parts: {', '.join(PARTS)}")


def remaining(forget: Sequence[str] | None, name: str) -> list[str]:
    """The topics without those to forget."""
    if forget is None:
        raise ValueError(
            f"{name!r} means all topics but those of `forget`, which is not known here: name the "
            f"topics, like facts:{topic_names()[0]},{topic_names()[1]}"
        )
    gone = {each.topic for other in forget if is_facts(other) for each in selections(other)}
    return [topic for topic in topic_names() if topic not in gone]


def check_disjoint(found: Sequence[Selection], name: str) -> None:
    """Refuse a name that has the same fact twice."""
    facts = [(each.topic, fact.subject) for each in found for fact in each.facts()]
    twice = next((topic for topic, subject in facts if facts.count((topic, subject)) > 1), None)
    if twice:
        raise ValueError(f"{name!r} has facts of the topic {twice} twice: name each part once")


def full_name(found: Iterable[Selection]) -> str:
    """The name that means these parts of topics wherever it is given."""
    return PREFIX + ",".join(map(str, found))
