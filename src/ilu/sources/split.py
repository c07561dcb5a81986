"""Questions to learn an attack from, and others to measure it on."""

from dataclasses import dataclass

from ilu.sources.choice import spread
from ilu.types import Question, Questions

LEAST = 10
"""Questions that can be halved."""


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
    if total < LEAST or (count is not None and count >= total):
        raise ValueError(
            f"{total} questions: an attack learns from some and is measured on others, so bring "
            f"at least {max(LEAST, (count or 0) + 1)}"
        )
    return spread(range(total), count or total // 2)
