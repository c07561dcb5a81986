"""What a model knows of facts: by choice among four answers, and by greedy generation."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ilu.data.facts.sources import (
    FactItem,
    FactItems,
    asked_by,
    heldout_questions,
)
from ilu.evals.metrics.generation import generate
from ilu.evals.metrics.known_facts import KnownFacts
from ilu.evals.metrics.multiple_choice import option_logps, picked
from ilu.evals.score import mean, mean_score
from ilu.system.scores import Score
from ilu.types import LM, Question, Questions

NEW_TOKENS = 4
"""Tokens of a reply beyond those of the longest answer."""
CHANCE = 0.25
"""Accuracy of guessing among four answers."""
SENTENCE_END = re.compile(r"\n|(?<![A-Z])[.!?](?:\s|$)")
"""A point after a capital letter belongs to a name, as in J. R. R. Tolkien."""
ARTICLES = ("a", "an", "the")


@dataclass(frozen=True)
class KnownItems:
    """Those facts of ``items`` that a model knows."""

    items: FactItems
    known: KnownFacts

    def __call__(self) -> list[FactItem]:
        known = set(self.known())
        return [each for each in self.items() if (each.topic, each.fact.subject) in known]


@dataclass(frozen=True)
class FactScores:
    """Accuracy by choice and by generation; an item is a fact, with the mean over its wordings.

    ``NAME_accuracy``: the likeliest of four answers by the sum over its tokens. ``NAME_generated``:
    the first sentence of the greedy reply begins or ends with the answer, without case, accents,
    articles and punctuation. The standard errors are those of the mean over facts.
    """

    name: str
    items: FactItems | KnownItems
    batch_size: int = 16

    def __call__(self, lm: LM) -> dict[str, Score]:
        items = self.items()
        if not items:
            raise ValueError(f"{self.name}: `known` leaves no fact: the model knows none of them")
        ask = asked_by(lm.tokenizer)
        by_item = [heldout_questions(item, ask) for item in items]
        every = [question for questions in by_item for question in questions]
        right = chosen(lm, every, self.batch_size)
        same = replied(lm, every, self.batch_size)
        return {
            f"{self.name}_accuracy": by_fact(by_item, right),
            f"{self.name}_generated": by_fact(by_item, same),
        }


@dataclass(frozen=True)
class FactReplies:
    """Share of questions whose greedy reply gives the answer, as in ``FactScores``."""

    questions: Questions
    batch_size: int = 16
    higher_is_better: ClassVar[bool] = True

    def __call__(self, lm: LM) -> Score:
        questions = self.questions()
        return mean_score(replied(lm, questions, self.batch_size) if questions else [])


def chosen(lm: LM, by_item: Sequence[Question], batch_size: int) -> list[float]:
    """1 where the right option is the likeliest."""
    taken = picked(option_logps(lm, by_item, batch_size=batch_size))
    return [float(t == q.answer) for t, q in zip(taken, by_item, strict=True)]


def replied(lm: LM, by_item: Sequence[Question], batch_size: int) -> list[float]:
    """1 where the greedy reply gives the right option."""
    answers = [question.options[question.answer or 0] for question in by_item]
    texts = generate(
        lm,
        [question.prompt for question in by_item],
        max_new_tokens=longest(lm.tokenizer, answers) + NEW_TOKENS,
        batch_size=batch_size,
    )
    return [float(gives(text, answer)) for text, answer in zip(texts, answers, strict=True)]


def longest(tokenizer: Any, answers: Sequence[str]) -> int:
    """The number of tokens of the longest answer."""
    return max(map(len, tokenizer(list(answers), add_special_tokens=False).input_ids))


def gives(text: str, answer: str) -> bool:
    """Whether the first sentence of ``text`` begins or ends with ``answer``, both normalised."""
    said = normalised(SENTENCE_END.split(text.strip(), maxsplit=1)[0])
    wanted = normalised(answer)
    return wanted in (said[: len(wanted)], said[-len(wanted) :])


def normalised(text: str) -> list[str]:
    """The words of a text without case, accents, articles and punctuation."""
    letters = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    words = re.sub(r"[^\w\s]", " ", "".join(letters).casefold()).split()
    return [word for word in words if word not in ARTICLES]


def by_fact(by_item: Sequence[Sequence[Question]], values: Sequence[float]) -> Score:
    """The mean over facts of the mean over the wordings of each."""
    each = iter(values)
    return mean_score([mean([next(each) for _ in questions]) for questions in by_item])
