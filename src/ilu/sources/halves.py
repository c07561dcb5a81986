"""Two halves of a source's items: settings are chosen on one half and judged on the other.

In which half an item is depends on the item alone, drawn by a hash of its text. So both halves have
all kinds of items, whatever period the data has, and an item that several sources share, such as
the whole and a part of it, is in the same half of each.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ilu.sources.views import picked
from ilu.types import Example, Question, Questions, Source

Half = Literal["validation", "test"]


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
