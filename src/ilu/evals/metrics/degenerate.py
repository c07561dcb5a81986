"""Whether a model still writes text: the share of its continuations that are degenerate."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ilu.data.splits import limited
from ilu.evals.metrics.fluency import repetition
from ilu.evals.metrics.generation import continuations
from ilu.evals.score import mean_score
from ilu.models.blocks import context_length
from ilu.system.scores import Score
from ilu.types import LM, Example, Source

TOKENS = 32
"""Most new tokens of a continuation."""
REPEATED = 0.5
"""Share of repeated 3-grams of tokens above which a continuation is degenerate."""


@dataclass(frozen=True)
class Degenerate:
    """Share of greedy continuations of examples that are empty or mostly repeat themselves (ours).

    A continuation has at most 32 tokens. It is degenerate without any letter or digit, or if more
    than half of its 3-grams of tokens occur in it before (seq-rep-n, arXiv 1908.04319). An example
    with an answer is continued after its prompt, a text after its first half. Small models repeat
    themselves before unlearning as well: compare with the original.
    """

    source: Source
    count: int = 16
    batch_size: int = 16
    higher_is_better: ClassVar[bool] = False

    def __call__(self, lm: LM) -> Score:
        limit = context_length(lm.model)
        new = TOKENS if limit is None else min(TOKENS, limit // 2)
        examples = limited(self.source(lm.tokenizer), self.count)
        heads = [start(e)[-(limit - new) if limit else 0 :] for e in examples]
        size = self.batch_size
        texts = continuations(lm, heads, max_new_tokens=new, batch_size=size) if heads else []
        return mean_score([float(is_degenerate(text, lm.tokenizer)) for text in texts])


def start(example: Example) -> list[int]:
    """The tokens to continue: the prompt, or the first half of a text without one."""
    known = example.prompt if example.prompt > 1 else (len(example.ids) + 1) // 2
    return list(example.ids[:known])


def is_degenerate(text: str, tokenizer: Any) -> bool:
    """Whether a continuation says nothing, or mostly repeats itself."""
    if not any(letter.isalnum() for letter in text):
        return True
    tokens: Sequence[int] = tokenizer(text, add_special_tokens=False).input_ids
    return (repetition([str(token) for token in tokens], n=3) or 0.0) > REPEATED
