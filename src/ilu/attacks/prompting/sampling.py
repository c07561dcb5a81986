"""Asking many times: an answer that is rarely given is still there."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ilu.evals.metrics.generation import generate
from ilu.evals.score import mean_score
from ilu.system.scores import Score
from ilu.system.seeds import seeded
from ilu.types import LM, Question, Questions


@dataclass(frozen=True)
class Sampling:
    """What ``count`` free answers at ``temperature`` say; an option is given if a text has it.

    ``sampling_any``: the right option is in at least one (a leak over samples, arXiv 2410.03523).
    Guessing among the options would give ``sampling_any_wrong``, the same for the mean wrong one.
    ``sampling_accuracy``: the option in most texts is taken, equals share the point, so that
    guessing gives one over the number of options (self-consistency, arXiv 2203.11171).
    """

    questions: Questions
    count: int = 8
    temperature: float = 1.0
    max_new_tokens: int = 8
    seed: int = 0
    batch_size: int = 256

    def __call__(self, lm: LM) -> dict[str, Score]:
        asked = self.questions()
        prompts = [q.prompt for q in asked for _ in range(self.count)]
        with seeded(self.seed, next(lm.model.parameters()).device):
            texts = generate(
                lm,
                prompts,
                max_new_tokens=self.max_new_tokens,
                batch_size=self.batch_size,
                temperature=self.temperature,
            )
        own = [texts[i : i + self.count] for i in range(0, len(texts), self.count)]
        counts = [
            [sum(gives(text, option) for text in given) for option in q.options]
            for given, q in zip(own, asked, strict=True)
        ]
        return recovered(counts, asked)


def recovered(counts: Sequence[Sequence[int]], asked: Sequence[Question]) -> dict[str, Score]:
    """Scores from how many texts have each option of each question."""
    names = ("sampling_accuracy", "sampling_any", "sampling_any_wrong")
    nothing = (None,) * len(names)
    pairs = zip(counts, asked, strict=True)
    rows = [nothing if q.answer is None else judged(c, q.answer) for c, q in pairs]
    columns = zip(*rows, strict=True)
    return {name: mean_score(column) for name, column in zip(names, columns, strict=True)}


def judged(counts: Sequence[int], answer: int) -> tuple[float, float, float]:
    """The vote for the right option, whether any text has it, and the share of wrong ones had."""
    wrong = [n > 0 for i, n in enumerate(counts) if i != answer]
    return vote(counts, answer), float(counts[answer] > 0), sum(wrong) / len(wrong)


def vote(counts: Sequence[int], answer: int) -> float:
    """The share of the point that falls to the right option; all equal if none was given."""
    most = max(counts)
    return (counts[answer] == most) / sum(n == most for n in counts)


def gives(text: str, option: str) -> bool:
    """Whether a text has an option as a word; a letter only as it is written."""
    word = option.strip()
    flags = re.I if len(word) > 1 else 0
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, flags) is not None
