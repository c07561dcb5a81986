"""Repeated sampling, which reveals answers that the model gives rarely."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ilu.attacks.prompting.kind import ProbeInputs, ProbeKind
from ilu.evals.metrics.generation import generate
from ilu.evals.metrics.rouge import without_spaces
from ilu.evals.score import mean_score
from ilu.system.scores import Score
from ilu.system.seeds import seeded
from ilu.types import LM, Question, Questions


@dataclass(frozen=True)
class Sampling:
    """Accuracies over ``count`` sampled answers per question; a text gives each option it contains.

    ``sampling_any``: at least one text gives the right option (leakage over samples, arXiv
    2410.03523). ``sampling_any_wrong`` is the same for a wrong option, on average: the value that
    guessing would have. ``sampling_accuracy`` is the accuracy of a majority vote (self-consistency,
    arXiv 2203.11171). Tied options share the point, so guessing scores one over the number of
    options.
    """

    questions: Questions
    count: int = 8
    temperature: float = 1.0
    max_new_tokens: int = 8
    seed: int = 0
    batch_size: int = 256

    def __call__(self, lm: LM) -> dict[str, Score]:
        questions = self.questions()
        prompts = [q.prompt for q in questions for _ in range(self.count)]
        with seeded(self.seed, next(lm.model.parameters()).device):
            texts = generate(
                lm,
                prompts,
                max_new_tokens=self.max_new_tokens,
                batch_size=self.batch_size,
                temperature=self.temperature,
            )
        per_question = [texts[i : i + self.count] for i in range(0, len(texts), self.count)]
        counts = [
            [sum(gives(text, option) for text in texts) for option in q.options]
            for texts, q in zip(per_question, questions, strict=True)
        ]
        return recovered(counts, questions)


def recovered(counts: Sequence[Sequence[int]], questions: Sequence[Question]) -> dict[str, Score]:
    """Scores from the number of texts that give each option of each question."""
    names = ("sampling_accuracy", "sampling_any", "sampling_any_wrong")
    nothing = (None,) * len(names)
    pairs = zip(counts, questions, strict=True)
    rows = [nothing if q.answer is None else judged(c, q.answer) for c, q in pairs]
    columns = zip(*rows, strict=True)
    return {name: mean_score(column) for name, column in zip(names, columns, strict=True)}


def judged(counts: Sequence[int], answer: int) -> tuple[float, float, float]:
    """The vote for the right option, whether it is given, and the share of wrong options given."""
    wrong = [n > 0 for i, n in enumerate(counts) if i != answer]
    return vote(counts, answer), float(counts[answer] > 0), sum(wrong) / len(wrong)


def vote(counts: Sequence[int], answer: int) -> float:
    """The share of the point for the right option. Tied options share it, also at no vote."""
    most = max(counts)
    return (counts[answer] == most) / sum(n == most for n in counts)


def gives(text: str, option: str) -> bool:
    """Whether a text contains an option as a word. A single letter must match in case.

    In a script that does not separate words, any place in the text counts.
    """
    word = option.strip()
    flags = re.I if len(word) > 1 else 0
    before, after = (border(letter, side) for letter, side in ((word[:1], "<!"), (word[-1:], "!")))
    return re.search(f"{before}{re.escape(word)}{after}", text, flags) is not None


def border(letter: str, side: str) -> str:
    """The pattern of the border of a word that begins or ends with a letter."""
    return "" if without_spaces(letter) else rf"(?{side}\w)"


def repeated(inputs: ProbeInputs, argument: str) -> Sampling:
    """Take the majority of several sampled answers."""
    return Sampling(inputs.questions, seed=inputs.seed)


PROBES = {"sampling": ProbeKind(repeated)}
