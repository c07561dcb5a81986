"""TOFU's metrics: one forward pass over every answer of a set, one generation, pure functions.

The two are pieces of work of their own: an interrupted suite keeps what it has of either. The
metrics within a piece share its work and are kept together.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ilu.evals.metrics.answer_logprobs import Read, read_answers, without_end
from ilu.evals.metrics.generation import continuations
from ilu.evals.metrics.memorisation import exact_memorisation, extraction_strength
from ilu.evals.metrics.refusal import refuses
from ilu.evals.metrics.rouge import rouge_l
from ilu.evals.score import mean_score
from ilu.scores import Score
from ilu.system.optional import need
from ilu.types import LM, Example, Source

Logps = Sequence[float]
"""Mean log-probability per token of several answers to one question."""
UTILITY_SETS = ("retain", "real_authors", "world_facts")
UTILITY_METRICS = ("probability", "rouge", "truth")


def answer_alone(answer: float, wrong: Logps) -> float:
    """P(a|q)^(1/|a|), whatever else could be answered: forget and retain set (arXiv 2401.06121)."""
    return math.exp(answer)


def among(answer: float, wrong: Logps) -> float:
    """P(a|q) / sum over all answers on offer, each P per token: real authors and world facts.

    As the authors' code has it (arXiv 2401.06121): lengths are normalised here as well.
    """
    return 1 / (1 + sum(bounded_exp(w - answer) for w in wrong))


def truth_ratio_geometric(right: float, wrong: Logps) -> float:
    """R = geometric mean of P(wrong) / P(paraphrase), all per token.

    The paper's formula has the arithmetic mean (arXiv 2401.06121); the authors' aggregation, and
    everyone after them, the geometric one. Forget quality and model utility use this.
    """
    return bounded_exp(statistics.fmean(wrong) - right)


def truth_ratio_arithmetic(right: float, wrong: Logps) -> float:
    """R = arithmetic mean of P(wrong) / P(paraphrase), all per token (arXiv 2401.06121)."""
    return statistics.fmean(bounded_exp(w - right) for w in wrong)


def closeness(ratio: float) -> float:
    """min(R, 1/R): 1 where nothing tells right from wrong, the forget set's truth ratio."""
    return min(ratio, 1 / ratio) if ratio else 0.0


def preference(ratio: float) -> float:
    """max(0, 1 - R): 1 where only the right answer is likely, as model utility wants it."""
    return max(0.0, 1 - ratio)


def bounded_exp(x: float) -> float:
    """exp, as far as a float goes."""
    return math.exp(min(x, 700.0))


@dataclass(frozen=True)
class Answers:
    """TOFU's metrics of known answers on one set, under names that begin with ``name``.

    ``source`` has beside each answer its paraphrase and then the wrong answers (arXiv 2401.06121).
    Probability, truth ratios (both means, and the score in [0, 1] made of the geometric one by
    ``truth``), exact memorisation and extraction strength come from one forward pass. The token
    that ends an answer counts in probabilities, as in training, and in nothing else.
    """

    name: str
    source: Source
    likelihood: Callable[[float, Logps], float] = answer_alone
    truth: Callable[[float], float] = preference
    batch_size: int = 16

    def __call__(self, lm: LM) -> Mapping[str, Score]:
        examples = self.source(lm.tokenizer)
        asked = [one for e in examples for one in (e, *e.others)]
        read = iter(read_answers(lm, asked, batch_size=self.batch_size, name=self.name))
        rows = [[next(read) for _ in (e, *e.others)] for e in examples]
        items = self.likelihoods(rows, lm.tokenizer)
        return {f"{self.name}_{metric}": mean_score(values) for metric, values in items.items()}

    def likelihoods(
        self, rows: Sequence[Sequence[Read]], tokenizer: Any
    ) -> dict[str, list[float | None]]:
        """What the tokens' log-probabilities say of each question; None where one has no token."""
        found = [None if means is None else self.of(*means) for means in map(means_of, rows)]
        firsts = [without_end(row[0], tokenizer.eos_token_id).first for row in rows]
        names = ("probability", "truth_ratio", "truth_ratio_arithmetic", "truth")
        return {
            **{
                n: [None if each is None else each[i] for each in found]
                for i, n in enumerate(names)
            },
            "exact_memorisation": [exact_memorisation(first) for first in firsts],
            "extraction_strength": [extraction_strength(first) for first in firsts],
        }

    def of(self, answer: float, right: float, *wrong: float) -> tuple[float, float, float, float]:
        """Probability, both truth ratios and the score made of the geometric one."""
        ratio = truth_ratio_geometric(right, wrong)
        arithmetic = truth_ratio_arithmetic(right, wrong)
        return self.likelihood(answer, wrong), ratio, arithmetic, self.truth(ratio)


def means_of(row: Sequence[Read]) -> list[float] | None:
    """Mean log-probability per token of every answer, if all of them have tokens."""
    if not all(len(read.logp) for read in row):
        return None
    return [read.logp.double().mean().item() for read in row]


@dataclass(frozen=True)
class Replies:
    """TOFU's metrics of what a model answers by itself, under names that begin with ``name``.

    ROUGE-L recall (stemmed, arXiv 2401.06121) and the refusal rate of one greedy answer of at most
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
        said = continuations(lm, heads, max_new_tokens=new, batch_size=size)
        items = texts(examples, said, lm.tokenizer)
        return {f"{self.name}_{metric}": mean_score(values) for metric, values in items.items()}


def texts(
    examples: Sequence[Example], said: Sequence[str], tokenizer: Any
) -> dict[str, list[float | None]]:
    """What the generated answers say."""
    wanted = [tokenizer.decode(e.ids[e.prompt :], skip_special_tokens=True) for e in examples]
    rouge = [rouge_l(w, s, stem=True) for w, s in zip(wanted, said, strict=True)]
    return {
        "rouge": [None if r is None else r.recall for r in rouge],
        "refusals": [float(refuses(text)) for text in said],
    }


def model_utility(scores: Mapping[str, Score]) -> Mapping[str, Score]:
    """Harmonic mean of nine: probability, ROUGE, truth on three sets (arXiv 2401.06121).

    One that is 0 makes it 0. The standard error is first order, by item, so that it knows that the
    three metrics of a set share their questions.
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

    dH/dx = (H/x)^2 / count for each of its metrics; an item that is not scored moves nothing.
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

    On the forget set (arXiv 2401.06121). Large means that the test does not tell the model from one
    that never saw the forget set. It shrinks with the number of questions: forget01, 05 and 10 are
    not comparable. Truth ratios are ranked, so R and 1/R give the same.
    """
    need("scipy", "evals", "forget quality")
    from scipy import stats

    mine, theirs = (
        [ratio for ratio in s["forget_truth_ratio"].items if ratio is not None]
        for s in (scores, reference)
    )
    found: Any = stats.ks_2samp(mine, theirs)
    p = max(float(found.pvalue), 5e-324)  # the smallest that has a logarithm
    n = min(len(mine), len(theirs))
    return {
        "forget_quality": Score(p, 0.0, n),
        "forget_quality_log10": Score(math.log10(p), 0.0, n),
    }
