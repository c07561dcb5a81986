"""MUSE's metrics: what comes back verbatim, what is still known, what the likelihood betrays."""

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
from ilu.scores import Score
from ilu.types import LM, Source

NEXT_QUESTION = re.compile(r"\n\n|\nQuestion|Question:")


def whole_reply(text: str) -> str:
    """The text as it is."""
    return text


def before_next_question(text: str) -> str:
    """The answer alone: models go on with a question of their own."""
    return NEXT_QUESTION.split(text, maxsplit=1)[0].strip()


@dataclass(frozen=True)
class Overlap:
    """ROUGE-L F1 (no stemmer) of a greedy continuation with the true one (arXiv 2407.06460).

    VerbMem: 128 new tokens after a beginning, against as many of the true ones. KnowMem: 32 after a
    question behind answered ones, cut before the next question. The authors measure in 8 bits;
    here the model is measured as it is.
    """

    source: Source
    max_new_tokens: int
    cut: Callable[[str], str] = whole_reply
    batch_size: int = 16
    higher_is_better: ClassVar[bool] = True

    def __call__(self, lm: LM) -> Score:
        examples = self.source(lm.tokenizer)
        heads = [e.ids[: e.prompt] for e in examples]
        said = continuations(
            lm, heads, max_new_tokens=self.max_new_tokens, batch_size=self.batch_size
        )
        stop = self.max_new_tokens
        true = [
            lm.tokenizer.decode(e.ids[e.prompt : e.prompt + stop], skip_special_tokens=True)
            for e in examples
        ]
        found = [rouge_l(t, self.cut(s), stem=False) for t, s in zip(true, said, strict=True)]
        return mean_score([None if rouge is None else rouge.f1 for rouge in found])


@dataclass(frozen=True)
class MinK:
    """Min-K% as a statistic of a text (arXiv 2310.16789).

    At least one token is taken; MUSE's code takes none of a text that is too short, which is NaN.
    """

    share: float = 0.4

    def __call__(self, logp: Float[Tensor, " S"]) -> float:
        return min_k(logp, share=self.share)


@dataclass(frozen=True)
class Membership:
    """A statistic of each text of a forget set and of texts never seen, for PrivLeak."""

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
        """The statistic of each text; None for one of a single token, which nothing predicts."""
        examples = source(lm.tokenizer)
        read = read_answers(lm, examples, batch_size=self.batch_size, name=name)
        return [self.statistic(r.logp) if len(r.logp) else None for r in read]


def likelier_holdout(scores: Mapping[str, Score]) -> Score:
    """P(a holdout text has the larger statistic than a forget text), ties counted half."""
    return auc(*(scores[f"membership_{name}"].items for name in ("holdout", "forget")))


def membership_auc(scores: Mapping[str, Score]) -> Mapping[str, Score]:
    """AUC of the forget set against the holdout, in MUSE's orientation: 0 is perfect memory."""
    if "membership_forget" not in scores:
        return {}
    return {"membership_auc": likelier_holdout(scores)}


def privleak(scores: Mapping[str, Score], reference: Mapping[str, Score]) -> Mapping[str, Score]:
    """100 (AUC - AUC_retrain) / AUC_retrain: 0 is ideal, below under-, above over-unlearned.

    arXiv 2407.06460. AUC counts how often a holdout text looks likelier than a forget text, so a
    memorised forget set has -100. The upper bound depends on AUC_retrain: sides are not symmetric.
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
    """KnowMem on the retain set after each fold, as a share of the first model's, the original's.

    Scalability is this over models that unlearned larger and larger sets, sustainability over the
    models of a chain, each unlearned from the one before (arXiv 2407.06460).
    """
    first, *_ = utilities = [scores["knowmem_retain"] for scores in models]
    if not first.value:
        raise ValueError("the original model comes first and must know something of the retain set")
    return [{"knowmem_retain_kept": share_of(each, first)} for each in utilities]


def share_of(score: Score, whole: Score) -> Score:
    """A mean as a share of another over the same items; the error is first order, item by item.

    With r the ratio of the means, r - R is about the mean of (x - r y) / mean(y).
    """
    ratio = score.value / whole.value
    moves = [
        None if x is None or y is None else (x - ratio * y) / whole.value
        for x, y in zip(score.items, whole.items, strict=True)
    ]
    return mean_score(moves)._replace(value=ratio)
