"""TOFU's metrics: pure functions of one forward pass over the answers and of one generation.

``Answers`` is the forward pass and ``Replies`` the generation. Each is cached separately, so an
interrupted suite loses at most one of them.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ilu.evals.metrics.answer_logprobs import AnswerTokens, read_answers, words_of
from ilu.evals.metrics.generation import continuations
from ilu.evals.metrics.memorisation import exact_memorisation, extraction_strength
from ilu.evals.metrics.refusal import refuses
from ilu.evals.metrics.rouge import ROUGE_UNREAD, rouge_l
from ilu.evals.score import mean_score, scored
from ilu.system.scores import Score
from ilu.types import LM, Example, Source

Logps = Sequence[float]
"""Mean log-probability per token of several answers to one question."""
UTILITY_SETS = ("retain", "real_authors", "world_facts")
UTILITY_METRICS = ("probability", "rouge", "truth")


def answer_alone(answer: float, wrong: Logps) -> float:
    """P(a|q)^(1/|a|), without regard to wrong answers: forget and retain set (arXiv 2401.06121)."""
    return math.exp(answer)


def among(answer: float, wrong: Logps) -> float:
    """P(a|q) / sum over all candidate answers, each P per token: real authors and world facts.

    As in the authors' code (arXiv 2401.06121): here, too, the probabilities are length-normalised.
    """
    return 1 / (1 + sum(bounded_exp(w - answer) for w in wrong))


def truth_ratio_geometric(right: float, wrong: Logps) -> float:
    """R = geometric mean of P(wrong) / P(paraphrase), all per token.

    The paper's formula has the arithmetic mean (arXiv 2401.06121); the authors' code and later work
    use the geometric mean. Forget quality and model utility use this.
    """
    return bounded_exp(statistics.fmean(wrong) - right)


def truth_ratio_arithmetic(right: float, wrong: Logps) -> float:
    """R = arithmetic mean of P(wrong) / P(paraphrase), all per token (arXiv 2401.06121)."""
    return statistics.fmean(bounded_exp(w - right) for w in wrong)


def closeness(ratio: float) -> float:
    """min(R, 1/R), the forget set's truth ratio: 1 if right and wrong are equally likely."""
    return min(ratio, 1 / ratio) if ratio else 0.0


def preference(ratio: float) -> float:
    """max(0, 1 - R), the truth ratio in model utility: 1 if only the right answer is likely."""
    return max(0.0, 1 - ratio)


def bounded_exp(x: float) -> float:
    """exp, bounded so that it does not overflow."""
    return math.exp(min(x, 700.0))


@dataclass(frozen=True)
class Answers:
    """TOFU's metrics of known answers on one set, under names that begin with ``name``.

    The counterparts (``others``) of each answer of ``source`` are its paraphrase and then the wrong
    answers (arXiv 2401.06121). One forward pass gives probability, both truth ratios, ``truth`` of
    the geometric one (a score in [0, 1]), exact memorisation and extraction strength. The
    token that ends an answer counts in probabilities, as in training, and in no other metric.
    """

    name: str
    source: Source
    likelihood: Callable[[float, Logps], float] = answer_alone
    truth: Callable[[float], float] = preference
    batch_size: int = 16

    def __call__(self, lm: LM) -> Mapping[str, Score]:
        examples = self.source(lm.tokenizer)
        answers = [one for e in examples for one in (e, *e.others)]
        read = iter(read_answers(lm, answers, batch_size=self.batch_size, name=self.name))
        rows = [[next(read) for _ in (e, *e.others)] for e in examples]
        items = self.likelihoods(rows, examples)
        return {f"{self.name}_{metric}": mean_score(values) for metric, values in items.items()}

    def likelihoods(
        self, rows: Sequence[Sequence[AnswerTokens]], examples: Sequence[Example]
    ) -> dict[str, list[float | None]]:
        """The metrics of each question; None where an answer has no token."""
        ratios = [None if means is None else self.of(*means) for means in map(means_of, rows)]
        firsts = [words_of(row[0], e).first for row, e in zip(rows, examples, strict=True)]
        names = ("probability", "truth_ratio", "truth_ratio_arithmetic", "truth")
        return {
            **{
                n: [None if each is None else each[i] for each in ratios]
                for i, n in enumerate(names)
            },
            "exact_memorisation": [exact_memorisation(first) for first in firsts],
            "extraction_strength": [extraction_strength(first) for first in firsts],
        }

    def of(self, answer: float, right: float, *wrong: float) -> tuple[float, float, float, float]:
        """Probability, both truth ratios, and ``truth`` of the geometric one."""
        ratio = truth_ratio_geometric(right, wrong)
        arithmetic = truth_ratio_arithmetic(right, wrong)
        return self.likelihood(answer, wrong), ratio, arithmetic, self.truth(ratio)


def means_of(row: Sequence[AnswerTokens]) -> list[float] | None:
    """Mean log-probability per token of every answer, if all of them have tokens."""
    if not all(len(read.logp) for read in row):
        return None
    return [read.logp.double().mean().item() for read in row]


@dataclass(frozen=True)
class Replies:
    """TOFU's metrics of generated answers, under names that begin with ``name``.

    ROUGE-L recall (stemmed, arXiv 2401.06121) and refusal rate of a greedy answer of at most
    ``max_new_tokens``.
    """

    name: str
    source: Source
    max_new_tokens: int = 200
    batch_size: int = 16

    def __call__(self, lm: LM) -> Mapping[str, Score]:
        examples = self.source(lm.tokenizer)
        heads = [e.ids[: e.prompt] for e in examples]
        new, size = self.max_new_tokens, self.batch_size
        generated = continuations(lm, heads, max_new_tokens=new, batch_size=size)
        items = texts(examples, generated, lm.tokenizer)
        return {
            **scored(f"{self.name}_rouge", items["rouge"], ROUGE_UNREAD),
            f"{self.name}_refusals": mean_score(items["refusals"]),
        }


def texts(
    examples: Sequence[Example], generated: Sequence[str], tokenizer: Any
) -> dict[str, list[float | None]]:
    """ROUGE-L recall and refusal of each generated answer."""
    expected = [tokenizer.decode(e.words, skip_special_tokens=True) for e in examples]
    rouge = [rouge_l(w, s, stem=True) for w, s in zip(expected, generated, strict=True)]
    return {
        "rouge": [None if r is None else r.recall for r in rouge],
        "refusals": [float(refuses(text)) for text in generated],
    }


def model_utility(scores: Mapping[str, Score]) -> Mapping[str, Score]:
    """Harmonic mean of nine: probability, ROUGE, truth on three sets (arXiv 2401.06121).

    If one is 0, the mean is 0. The standard error is first order and by item, so it includes that
    the three metrics of a set share their questions.
    """
    names = [[f"{s}_{m}" for m in UTILITY_METRICS] for s in UTILITY_SETS]
    if not all(name in scores for row in names for name in row):
        return {}
    values = [scores[name].value for row in names for name in row]
    mean = statistics.harmonic_mean(values)
    variance = sum(set_variance([scores[n] for n in row], mean, len(values)) for row in names)
    return {"model_utility": Score(mean, math.sqrt(variance), len(values))}


def set_variance(scores: Sequence[Score], mean: float, count: int) -> float:
    """Variance that one set's questions give the harmonic mean of ``count`` values.

    dH/dx = (H/x)^2 / count for each of its metrics. An unscored item contributes 0.
    """
    if not mean:
        return 0.0
    slopes = [(mean / s.value) ** 2 / count for s in scores]
    moves = [
        sum(
            slope * (0.0 if item is None else (item - s.value) / s.n)
            for slope, s, item in zip(slopes, scores, items, strict=True)
        )
        for items in zip(*(s.items for s in scores), strict=True)
    ]
    return sum(move**2 for move in moves) * len(moves) / max(1, len(moves) - 1)


def forget_quality(
    scores: Mapping[str, Score], reference: Mapping[str, Score]
) -> Mapping[str, Score]:
    """p-value of a two-sample KS test between the truth ratios R of model and oracle.

    On the forget set (arXiv 2401.06121). A large p means no significant difference from a model
    that never saw the forget set. p falls as the number of questions grows: forget01, 05 and 10 are
    not comparable. The test uses only ranks, so R and 1/R give the same p.
    """
    from scipy import stats

    mine, theirs = (
        [ratio for ratio in s["forget_truth_ratio"].items if ratio is not None]
        for s in (scores, reference)
    )
    test: Any = stats.ks_2samp(mine, theirs)
    p = max(float(test.pvalue), 5e-324)  # the smallest float with a finite logarithm
    n = min(len(mine), len(theirs))
    return {
        "forget_quality": Score(p, 0.0, n),
        "forget_quality_log10": Score(math.log10(p), 0.0, n),
    }
