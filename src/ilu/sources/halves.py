"""Every second item of a source: settings are chosen on one half and judged on the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ilu.types import Example, Question, Questions, Source

Half = Literal["validation", "test"]
"""Items 1, 3, 5, ... are for validation, the others for the test."""


@dataclass(frozen=True)
class HalfOfQuestions:
    """Half of the questions of ``whole``."""

    whole: Questions
    half: Half

    def __call__(self) -> list[Question]:
        return self.whole()[start(self.half) :: 2]


@dataclass(frozen=True)
class HalfOfExamples:
    """Half of the examples of ``whole``."""

    whole: Source
    half: Half

    def __call__(self, tokenizer: Any) -> Sequence[Example]:
        return self.whole(tokenizer)[start(self.half) :: 2]


def start(half: Half) -> int:
    """Where a half begins."""
    return ("validation", "test").index(half)
