"""Parts of a source: rows, held-out rows, halves, and questions that an attack does not see."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ilu.data.lazy import picked
from ilu.data.multiple_choice import spread
from ilu.types import Example, Question, Questions, Source

FEWEST_QUESTIONS = 10
"""Questions that can be divided into those to learn from and those to measure on."""


@dataclass(frozen=True)
class Taken:
    """``count`` questions of a source, evenly spread; half of them if left out."""

    questions: Questions
    count: int | None = None

    def __call__(self) -> list[Question]:
        whole = self.questions()
        return [whole[i] for i in taken(len(whole), self.count)]


@dataclass(frozen=True)
class Left:
    """At most ``most`` of the questions that ``Taken(questions, count)`` leaves, evenly spread."""

    questions: Questions
    count: int | None
    most: int

    def __call__(self) -> list[Question]:
        whole = self.questions()
        gone = set(taken(len(whole), self.count))
        return spread([q for i, q in enumerate(whole) if i not in gone], self.most)


def taken(total: int, count: int | None) -> list[int]:
    """Which of ``total`` questions an attack is measured on."""
    if total < FEWEST_QUESTIONS or (count is not None and count >= total):
        raise ValueError(
            f"{total} questions: an attack learns from some and is measured on others, so bring "
            f"at least {max(FEWEST_QUESTIONS, (count or 0) + 1)}"
        )
    return spread(range(total), count or total // 2)


Half = Literal["validation", "test"]
"""Settings are chosen on one half and judged on the other.

The half of an item depends on the item alone, by a hash of its text. So both halves have all kinds
of items, whatever period the data has, and an item that several sources share is in the same half
of each.
"""


@dataclass(frozen=True)
class HalfOfQuestions:
    """About half of the questions of ``whole``."""

    whole: Questions
    half: Half

    def __call__(self) -> list[Question]:
        asked = self.whole()
        texts = (repr((q.prompt, q.options, q.contexts)) for q in asked)
        return [asked[i] for i in rows_in(self.half, texts)]


@dataclass(frozen=True)
class HalfOfExamples:
    """About half of the examples of ``whole``."""

    whole: Source
    half: Half

    def __call__(self, tokenizer: Any) -> Sequence[Example]:
        examples = self.whole(tokenizer)
        return picked(examples, rows_in(self.half, (str(e.ids) for e in examples)))


def rows_in(half: Half, texts: Iterable[str]) -> list[int]:
    """Which of the items are in ``half``; ValueError if none is."""
    halves = [half_of(text) for text in texts]
    found = [i for i, each in enumerate(halves) if each == half]
    if not found:
        raise ValueError(
            f"none of {len(halves)} items is in the {half} half, where each is by chance: bring "
            "more items, 20 or so, to search for settings"
        )
    return found


def half_of(text: str) -> Half:
    """The half of an item, as good as drawn: a bit of a hash of its text."""
    drawn = hashlib.blake2b(text.encode(), digest_size=1).digest()[0]
    return "validation" if drawn % 2 else "test"


@dataclass(frozen=True)
class Part:
    """Examples ``start`` to ``stop`` of another source."""

    source: Source
    start: int = 0
    stop: int | None = None

    def __call__(self, tokenizer: Any) -> Sequence[Example]:
        examples = self.source(tokenizer)
        if not self.start < len(examples) or (self.stop or 0) > len(examples):
            raise ValueError(
                f"examples {self.start} to {self.stop or 'the last'} of {len(examples)}: there are "
                "not that many"
            )
        return examples[self.start : self.stop]


MOST, LEAST = 200, 100
"""Examples that are held out at most, and those below which none is: there is none to spare."""


def held_out(total: int) -> list[int]:
    """Which examples of a source say how well it was learned: a tenth, spread over all of them."""
    return spread(range(total), min(MOST, total // 10)) if total >= LEAST else []


@dataclass(frozen=True)
class HeldOut:
    """Examples of a source that ``Trained`` leaves out; none of a small one."""

    source: Source

    def __call__(self, tokenizer: Any) -> Sequence[Example]:
        examples = self.source(tokenizer)
        return picked(examples, held_out(len(examples)))


@dataclass(frozen=True)
class Trained:
    """A source without what is held out, and without what equals it."""

    source: Source

    def __call__(self, tokenizer: Any) -> Sequence[Example]:
        examples = self.source(tokenizer)
        left_out = {(tuple((e := examples[i]).ids), e.prompt) for i in held_out(len(examples))}
        rows = [i for i, e in enumerate(examples) if (tuple(e.ids), e.prompt) not in left_out]
        return picked(examples, rows) if left_out else examples
