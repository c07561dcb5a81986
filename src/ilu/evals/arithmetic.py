"""Arithmetic in words, checked by the number that a generation ends with."""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from ilu.evals.generation import continuations
from ilu.sources.choice import spread
from ilu.sources.hub import load_rows
from ilu.sources.tasks import GSM8K
from ilu.sources.text import encode
from ilu.types import LM, Score, check_limit, mean_score

NUMBER = re.compile(r"(?:(?<!\d)-)?\$?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")


@dataclass(frozen=True)
class FinalNumber:
    """Share of questions that a greedy generation answers with the right final number (GSM8K).

    ``name`` has the columns question and answer (arXiv 2110.14168), asked as ``Dataset`` trains on
    them. A generation without a number is wrong; a reference without one cannot be scored.
    """

    name: str = "openai/gsm8k:main:test"
    limit: int | None = None
    revision: str | None = GSM8K
    max_new_tokens: int = 256
    batch_size: int = 16
    higher_is_better: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_limit(self.limit)

    def __call__(self, lm: LM) -> Score:
        rows = spread(load_rows(self.name, self.revision), self.limit)
        asked = [encode(row, ("question", "answer"), lm.tokenizer) for row in rows]
        said = continuations(
            lm,
            [e.ids[: e.prompt] for e in asked],
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
        )
        answers = [str(row["answer"]) for row in rows]
        return mean_score([right(s, answer) for s, answer in zip(said, answers, strict=True)])


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
