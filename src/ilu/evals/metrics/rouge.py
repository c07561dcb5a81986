"""Overlap of a generated text with its reference: ROUGE-L and BLEU."""

from functools import lru_cache
from typing import Any, NamedTuple

from ilu.system.optional import need


class RougeL(NamedTuple):
    """Longest common subsequence of words: its share of the reference, and the F1."""

    recall: float
    f1: float


def rouge_l(reference: str, text: str, *, stem: bool) -> RougeL | None:
    """ROUGE-L by the library ``rouge-score``; None for a reference in which it finds no word.

    The library recognises only a to z and digits; for other scripts it would return 0.
    """
    scorer = rouge_scorer(stem)
    if not scorer._tokenizer.tokenize(reference):
        return None
    score = scorer.score(reference, text)["rougeL"]
    return RougeL(float(score.recall), float(score.fmeasure))


@lru_cache(maxsize=2)
def rouge_scorer(stem: bool) -> Any:
    """The scorer, with Porter's stemmer or without."""
    need("rouge_score", "evals", "ROUGE")
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=stem)


def bleu(reference: str, text: str) -> float | None:
    """Sentence BLEU from 0 to 1 by the library ``sacrebleu``; None for an empty reference."""
    if not reference.strip():
        return None
    need("sacrebleu", "evals", "BLEU")
    from sacrebleu import sentence_bleu

    return float(sentence_bleu(text, [reference]).score) / 100
