"""MUSE's metrics: verbatim memorisation, knowledge memorisation, privacy leakage."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ilu.evals.metrics.answer_logprobs import read_answers
from ilu.evals.metrics.generation import continuations
from ilu.evals.metrics.membership import auc, min_k
from ilu.evals.metrics.rouge import rouge_l
from ilu.evals.score import mean_score
from ilu.system.scores import Score
from ilu.types import LM, Source

NEXT_QUESTION = re.compile(r"\n\n|\nQuestion|Question:")


def whole_reply(text: str) -> str:
    """The text as it is."""
    return text


def before_next_question(text: str) -> str:
    """The answer without the next question, with which base models often continue."""
    return NEXT_QUESTION.split(text, maxsplit=1)[0].strip()


@dataclass(frozen=True)
class Overlap:
    """ROUGE-L F1 (no stemmer) of a greedy continuation with the true one (arXiv 2407.06460).

    VerbMem: 128 new tokens after the beginning of a text, against as many of its true tokens.
    KnowMem: 32 after a question with few-shot examples, cut before the next question. The authors
    quantise the model to 8 bits; here it is measured in its own precision.
    """

    source: Source
    max_new_tokens: int
    cut: Callable[[str], str] = whole_reply
    batch_size: int = 16
    higher_is_better: ClassVar[bool] = True

    def __call__(self, lm: LM) -> Score:
        examples = self.source(lm.tokenizer)
        heads = [e.ids[: e.prompt] for e in examples]
        generated = continuations(
            lm, heads, max_new_tokens=self.max_new_tokens, batch_size=self.batch_size
        )
        stop = self.max_new_tokens
        true = [lm.tokenizer.decode(e.words[:stop], skip_special_tokens=True) for e in examples]
        scores = [rouge_l(t, self.cut(s), stem=False) for t, s in zip(true, generated, strict=True)]
        return mean_score([None if rouge is None else rouge.f1 for rouge in scores])


@dataclass(frozen=True)
class MinK:
    """Min-K% as a statistic of a text (arXiv 2310.16789).

    At least one token counts; MUSE's code takes none of a short text, which gives NaN.
    """

    share: float = 0.4

    def __call__(self, logp: Float[Tensor, " S"]) -> float:
        return min_k(logp, share=self.share)


@dataclass(frozen=True)
class Membership:
    """A statistic of the words of each text of the forget set and of unseen texts, for PrivLeak."""

    forget: Source
    holdout: Source
    statistic: Callable[[Float[Tensor, " S"]], float] = MinK()
    batch_size: int = 8

    def __call__(self, lm: LM) -> Mapping[str, Score]:
        return {
            f"membership_{name}": mean_score(self.values(lm, source, name))
            for name, source in (("forget", self.forget), ("holdout", self.holdout))
        }

    def values(self, lm: LM, source: Source, name: str) -> list[float | None]:
        """The statistic of each text; None for a text of one token, which has no prediction."""
        examples = [example.without_end() for example in source(lm.tokenizer)]
        read = read_answers(lm, examples, batch_size=self.batch_size, name=name)
        return [self.statistic(r.logp) if len(r.logp) else None for r in read]


def likelier_holdout(scores: Mapping[str, Score]) -> Score:
    """P(a holdout text has a larger statistic than a forget text), ties count half."""
    return auc(*(scores[f"membership_{name}"].items for name in ("holdout", "forget")))


def membership_auc(scores: Mapping[str, Score]) -> Mapping[str, Score]:
    """AUC of the forget set against the holdout, in MUSE's direction: 0 is perfect memorisation."""
    if "membership_forget" not in scores:
        return {}
    return {"membership_auc": likelier_holdout(scores)}


def privleak(scores: Mapping[str, Score], reference: Mapping[str, Score]) -> Mapping[str, Score]:
    """100 (AUC - AUC_retrain) / AUC_retrain: 0 is ideal, < 0 under-unlearned, > 0 over-unlearned.

    arXiv 2407.06460. AUC is the probability that a holdout text is likelier than a forget text, so
    a memorised forget set has -100. The upper bound depends on AUC_retrain: the two directions are
    not symmetric.
    """
    if "membership_forget" not in scores:
        return {}
    mine, theirs = (likelier_holdout(s).value for s in (scores, reference))
    if not theirs:
        raise ValueError(
            "PrivLeak is undefined: to the reference model every forget text is likelier than "
            "every holdout text, so it has seen the forget set. Give a model that has not"
        )
    return {"privleak": Score(100 * (mine - theirs) / theirs, 0.0, scores["membership_forget"].n)}


def utility_kept(models: Sequence[Mapping[str, Score]]) -> list[Mapping[str, Score]]:
    """KnowMem on the retain set of each model, as a share of that of the first, the original model.

    Scalability is this for models that unlearned increasingly large sets. Sustainability is this
    for sequential unlearning, where each model is unlearned from the previous one (arXiv
    2407.06460).
    """
    first, *_ = utilities = [scores["knowmem_retain"] for scores in models]
    if not first.value:
        raise ValueError("the original model comes first and must know something of the retain set")
    return [{"knowmem_retain_kept": share_of(each, first)} for each in utilities]


def share_of(score: Score, total: Score) -> Score:
    """Ratio of two means over the same items, with a first-order error from the paired items.

    With r the ratio of the means, r - R is about the mean of (x - r y) / mean(y).
    """
    ratio = score.value / total.value
    moves = [
        None if x is None or y is None else (x - ratio * y) / total.value
        for x, y in zip(score.items, total.items, strict=True)
    ]
    return mean_score(moves)._replace(value=ratio)
