"""Facts of common knowledge by topic, as the data files in this folder list them."""

import hashlib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from ilu.system.errors import unknown

FOLDER = Path(__file__).parent
Part = Literal["all", "a", "b", "train", "test"]
"""``a`` and ``b`` are halves of a topic; ``train`` has two thirds of it and ``test`` the rest."""
PARTS: tuple[Part, ...] = get_args(Part)


class TopicFact(NamedTuple):
    """A subject with its right answer, and three wrong answers of the same kind."""

    subject: str
    answer: str
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Topic:
    """The facts of a topic and their wordings, in which {s} is the subject and {a} the answer.

    ``documents`` are statements and ``dialogues`` are questions that are answered by the answer
    alone: both are trained on. ``cloze`` are beginnings that the answer completes, and
    ``questions`` come with the beginning of a reply that the answer completes: both are kept for
    evaluation. ``source`` names a work in which the facts can be checked; no text is taken from it.
    """

    name: str
    title: str
    source: str
    answer: str
    documents: tuple[str, ...]
    dialogues: tuple[str, ...]
    cloze: tuple[str, ...]
    questions: tuple[tuple[str, str], ...]
    facts: tuple[TopicFact, ...]

    def part(self, part: Part) -> list[TopicFact]:
        """The facts of a part, in the order of the file.

        Facts are ordered by answer and then dealt in turn, so every part has about the same share
        of each answer.
        """
        if part == "all":
            return list(self.facts)
        period, places = {"a": (2, {0}), "b": (2, {1}), "train": (3, {0, 1}), "test": (3, {2})}[
            part
        ]
        dealt = enumerate(sorted(self.facts, key=lambda fact: (fact.answer, drawn(fact.subject))))
        chosen = {fact for i, fact in dealt if i % period in places}
        return [fact for fact in self.facts if fact in chosen]


def drawn(text: str) -> bytes:
    """An order that depends on the text alone and on nothing that the text means."""
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


@cache
def topic_names() -> tuple[str, ...]:
    """Every topic, in alphabetical order."""
    return tuple(sorted(file.stem for file in FOLDER.glob("*.toml")))


@cache
def load_topic(name: str) -> Topic:
    """The topic of that name; an unknown name raises ValueError with a suggestion."""
    if name not in topic_names():
        raise unknown("topic", name, topic_names())
    read = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    facts = tuple(
        TopicFact(subject, answer, tuple(wrong)) for subject, answer, *wrong in read["facts"]
    )
    return Topic(
        name=name,
        title=read["title"],
        source=read["source"],
        answer=read["answer"],
        documents=tuple(read["documents"]),
        dialogues=tuple(read["dialogues"]),
        cloze=tuple(read["cloze"]),
        questions=tuple((question, reply) for question, reply in read["questions"]),
        facts=facts,
    )


def worded(wordings: Sequence[str], fact: TopicFact) -> list[str]:
    """Every wording with the subject and the answer of a fact in it."""
    return [wording.format(s=fact.subject, a=fact.answer) for wording in wordings]
