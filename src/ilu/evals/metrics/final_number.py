"""Arithmetic in words, checked by the number that a generation ends with."""

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

    Problems (arXiv 2110.14168) are asked as ``Dataset`` trains on them. A generation without a
    number is wrong. A reference without one cannot be scored, nor can a question that leaves no
    room for ``max_new_tokens``.
    """

    problems: Problems = field(default_factory=Problems)
    max_new_tokens: int = 256
    batch_size: int = 16
    higher_is_better: ClassVar[bool] = True

    def __call__(self, lm: LM) -> Score:
        rows = self.problems()
        heads = [question_ids(row, lm.tokenizer) for row in rows]
        fits = [self.has_room(head, context_length(lm.model)) for head in heads]
        said = iter(
            continuations(
                lm,
                [head for head, fit in zip(heads, fits, strict=True) if fit],
                max_new_tokens=self.max_new_tokens,
                batch_size=self.batch_size,
            )
        )
        pairs = zip(rows, fits, strict=True)
        return mean_score([right(next(said), r["answer"]) if fit else None for r, fit in pairs])

    def has_room(self, head: Sequence[int], limit: int | None) -> bool:
        """Whether question and answer fit into the model's context; if not, there is no score."""
        return limit is None or len(head) + self.max_new_tokens <= limit


def question_ids(row: Row, tokenizer: Any) -> list[int]:
    """The tokens of a question as ``Dataset`` trains on it, up to where the answer begins."""
    example = encode(row, ("question", "answer"), tokenizer)
    return example.ids[: example.prompt]


def right(said: str, answer: str) -> float | None:
    """1 if both end in the same number, whatever the commas, the currency and the decimals."""
    wanted = final_number(answer)
    return None if wanted is None else float(final_number(said) == wanted)


def final_number(text: str) -> Decimal | None:
    """The number after the first ``####``, or else the last of the answer to this question.

    A base model goes on with a question of its own, and what follows it does not count. Stricter
    readers take only numbers after ``####``: here a model is not wrong for its format alone.
    """
    own = text.partition("\nQuestion:")[0]
    _, marked, final = own.partition("####")
    found = NUMBER.findall(final)[:1] if marked else NUMBER.findall(own)[-1:]
    return Decimal(re.sub(r"[$,]", "", found[0])) if found else None
