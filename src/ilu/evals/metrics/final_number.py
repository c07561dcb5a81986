"""Accuracy on arithmetic word problems: the final number of a generated answer is compared."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, ClassVar

from ilu.data.downstream import Problems
from ilu.data.readers import Row
from ilu.data.text import encode
from ilu.evals.metrics.generation import continuations
from ilu.evals.score import mean_score
from ilu.models.blocks import context_length
from ilu.scores import Score
from ilu.types import LM

NUMBER = re.compile(r"(?:(?<!\d)-)?\$?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")


@dataclass(frozen=True)
class FinalNumber:
    """Share of questions that a greedy generation answers with the right final number (GSM8K).

    The prompts of the problems (arXiv 2110.14168) have the format that ``Dataset`` trains on. A
    generation without a number is wrong. A question is not scored if its reference answer has no
    number, or if question and ``max_new_tokens`` exceed the context.
    """

    problems: Problems = field(default_factory=Problems)
    max_new_tokens: int = 256
    batch_size: int = 16
    higher_is_better: ClassVar[bool] = True

    def __call__(self, lm: LM) -> Score:
        rows = self.problems()
        heads = [question_ids(row, lm.tokenizer) for row in rows]
        fits = [self.has_room(head, context_length(lm.model)) for head in heads]
        generated = iter(
            continuations(
                lm,
                [head for head, fit in zip(heads, fits, strict=True) if fit],
                max_new_tokens=self.max_new_tokens,
                batch_size=self.batch_size,
            )
        )
        pairs = zip(rows, fits, strict=True)
        return mean_score(
            [right(next(generated), r["answer"]) if fit else None for r, fit in pairs]
        )

    def has_room(self, head: Sequence[int], limit: int | None) -> bool:
        """Whether question and answer fit into the model's context."""
        return limit is None or len(head) + self.max_new_tokens <= limit


def question_ids(row: Row, tokenizer: Any) -> list[int]:
    """The tokens of a question as ``Dataset`` trains on it, up to where the answer begins."""
    example = encode(row, ("question", "answer"), tokenizer)
    return example.ids[: example.prompt]


def right(generated: str, answer: str) -> float | None:
    """1 if both texts have the same final number, without regard to commas or currency."""
    expected = final_number(answer)
    return None if expected is None else float(final_number(generated) == expected)


def final_number(text: str) -> Decimal | None:
    """The number after the first ``####``, or else the last number of the answer.

    A base model often continues with another question: the text after ``Question:`` is ignored.
    Stricter implementations accept only numbers after ``####``; here the format alone makes no
    answer wrong.
    """
    reply = text.partition("\nQuestion:")[0]
    _, marked, final = reply.partition("####")
    numbers = NUMBER.findall(final)[:1] if marked else NUMBER.findall(reply)[-1:]
    return Decimal(re.sub(r"[$,]", "", numbers[0])) if numbers else None
