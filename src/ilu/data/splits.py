"""Parts of a source: ranges, held-out rows, halves, and questions an attack does not see."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ilu.data.lazy import joined, picked
from ilu.data.multiple_choice import spread
from ilu.types import Example, Question, Questions, Source

FEWEST_QUESTIONS = 10
"""Smallest number of questions to split into training and test questions."""


@dataclass(frozen=True)
class SampledQuestions:
    """``count`` questions of a source, evenly spread; half of them by default."""

    questions: Questions
    count: int | None = None

    def __call__(self) -> list[Question]:
        questions = self.questions()
        return [questions[i] for i in sampled(len(questions), self.count)]


@dataclass(frozen=True)
class OtherQuestions:
    """At most ``most`` questions, evenly spread, that ``SampledQuestions`` does not contain."""

    questions: Questions
    count: int | None
    most: int

    def __call__(self) -> list[Question]:
        questions = self.questions()
        chosen = set(sampled(len(questions), self.count))
        return spread([q for i, q in enumerate(questions) if i not in chosen], self.most)


def sampled(total: int, count: int | None) -> list[int]:
    """Indices of the questions, of ``total``, on which an attack is measured."""
    if total < FEWEST_QUESTIONS or (count is not None and count >= total):
        raise ValueError(
            f"{total} questions: an attack learns from some and is measured on others, so give "
            f"at least {max(FEWEST_QUESTIONS, (count or 0) + 1)}"
        )
    return spread(range(total), count or total // 2)


Half = Literal["validation", "test"]
"""Settings are chosen on one half and evaluated on the other.

The half of an item depends only on a hash of its text. So periodic data is split without bias, and
an item that several sources share is in the same half of each.
"""


@dataclass(frozen=True)
class HalfOfQuestions:
    """About half of ``questions``."""

    questions: Questions
    half: Half

    def __call__(self) -> list[Question]:
        questions = self.questions()
        texts = (repr((q.prompt, q.options, q.contexts)) for q in questions)
        return [questions[i] for i in rows_in(self.half, texts)]


@dataclass(frozen=True)
class HalfOfExamples:
    """About half of the examples of ``source``."""

    source: Source
    half: Half

    def __call__(self, tokenizer: Any) -> Sequence[Example]:
        examples = self.source(tokenizer)
        return picked(examples, rows_in(self.half, (str(e.ids) for e in examples)))


def rows_in(half: Half, texts: Iterable[str]) -> list[int]:
    """Indices of the items in ``half``; ValueError if there is none."""
    halves = [half_of(text) for text in texts]
    rows = [i for i, each in enumerate(halves) if each == half]
    if not rows:
        raise ValueError(
            f"none of {len(halves)} items is in the {half} half, which is random: give "
            "more items, 20 or so, to search for settings"
        )
    return rows


def half_of(text: str) -> Half:
    """The half of an item: a bit of a hash of its text."""
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


@dataclass(frozen=True)
class PartOfQuestions:
    """Questions ``start`` to ``stop`` of another source."""

    questions: Questions
    start: int = 0
    stop: int | None = None

    def __call__(self) -> list[Question]:
        return self.questions()[self.start : self.stop]


@dataclass(frozen=True)
class Joined:
    """The examples of several sources, one source after the other."""

    sources: tuple[Source, ...]

    def __call__(self, tokenizer: Any) -> Sequence[Example]:
        return joined([source(tokenizer) for source in self.sources])


@dataclass(frozen=True)
class Fold:
    """Fold ``index``, from 0, of the ``count`` folds of another source.

    Groups of ``together`` adjacent examples are dealt to the folds in turn.
    """

    source: Source
    index: int
    count: int
    together: int = 1

    def __call__(self, tokenizer: Any) -> Sequence[Example]:
        examples = self.source(tokenizer)
        rows = [i for i in range(len(examples)) if i // self.together % self.count == self.index]
        return picked(examples, rows)


def limited(examples: Sequence[Example], limit: int | None) -> Sequence[Example]:
    """At most ``limit`` examples, spread over all."""
    return examples if limit is None else picked(examples, spread(range(len(examples)), limit))


MOST, LEAST = 200, 100
"""The largest number of held-out examples, and the smallest source with held-out examples."""


def held_out(total: int, share: float = 0.1) -> list[int]:
    """Indices of the held-out examples of a source, evenly spread."""
    return spread(range(total), min(MOST, int(total * share))) if total >= LEAST else []


@dataclass(frozen=True)
class HeldOut:
    """The held-out examples of a source, which ``Trained`` omits.

    A small source has none; with ``or_all`` these are all its examples.
    """

    source: Source
    share: float = 0.1
    or_all: bool = False

    def __call__(self, tokenizer: Any) -> Sequence[Example]:
        examples = self.source(tokenizer)
        rows = held_out(len(examples), self.share)
        return examples if self.or_all and not rows else picked(examples, rows)


def untrained(source: Source) -> Source:
    """The part of a source that is not trained on, or all of it where no part is held out."""
    return (
        HeldOut(source.source, source.share, or_all=True) if isinstance(source, Trained) else source
    )


@dataclass(frozen=True)
class Trained:
    """A source without its held-out examples and their duplicates."""

    source: Source
    share: float = 0.1

    def __call__(self, tokenizer: Any) -> Sequence[Example]:
        examples = self.source(tokenizer)
        rows = held_out(len(examples), self.share)
        left_out = {(tuple((e := examples[i]).ids), e.prompt) for i in rows}
        rows = [i for i, e in enumerate(examples) if (tuple(e.ids), e.prompt) not in left_out]
        return picked(examples, rows) if left_out else examples
