"""Overlap of a generated text with its reference: ROUGE-L and BLEU."""

import unicodedata
from functools import lru_cache
from typing import Any, NamedTuple

from ilu.system.optional import need

SPACELESS = (
    "CJK", "HIRAGANA", "KATAKANA", "HALFWIDTH", "FULLWIDTH", "BOPOMOFO", "THAI", "LAO", "KHMER",
    "MYANMAR", "TIBETAN", "YI",
)  # fmt: skip
"""First words of the names of letters of scripts that do not separate words by spaces."""
SYMBOLS = (
    "GREEK", "MICRO", "OHM", "KELVIN", "ANGSTROM", "MATHEMATICAL", "DOUBLE", "SCRIPT", "FEMININE",
    "MASCULINE", "MODIFIER", "SUPERSCRIPT",
)  # fmt: skip
"""First words of the names of letters that are symbols where they are alone in a Latin text."""


ROUGE_UNREAD = "ROUGE reads words in Latin letters, and no reference has only such words"
BLEU_UNREAD = "BLEU reads words between spaces, and no reference has only such words"


class RougeL(NamedTuple):
    """Longest common subsequence of words: its share of the reference, and the F1."""

    recall: float
    f1: float


def rouge_l(reference: str, text: str, *, stem: bool) -> RougeL | None:
    """ROUGE-L by the library ``rouge-score``; None for a reference that it cannot read.

    The library recognises only a to z and digits. Of a reference in another script it would compare
    the numbers alone, so a reference with such words is not scored. A single Greek letter is a
    symbol.
    """
    scorer = rouge_scorer(stem)
    if not scorer._tokenizer.tokenize(reference) or other_script(reference):
        return None
    score = scorer.score(reference, text)["rougeL"]
    return RougeL(float(score.recall), float(score.fmeasure))


def other_script(text: str) -> bool:
    """Whether a text has words in another script than the Latin one."""
    return any(len(word) > 1 or script(word) not in SYMBOLS for word in foreign_words(text))


def foreign_words(text: str) -> list[str]:
    """The longest sequences of letters that are not Latin."""
    return "".join(c if c.isalpha() and script(c) != "LATIN" else " " for c in text).split()


def without_spaces(text: str) -> bool:
    """Whether a text has a word in a script that does not separate words."""
    return any(script(c) in SPACELESS for c in text if c.isalpha())


def script(letter: str) -> str:
    """The script of a letter: the first word of its name."""
    return unicodedata.name(letter, "").partition(" ")[0].partition("-")[0]


@lru_cache(maxsize=2)
def rouge_scorer(stem: bool) -> Any:
    """The scorer, with Porter's stemmer or without."""
    need("rouge_score", "evals", "ROUGE")
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=stem)


def bleu(reference: str, text: str) -> float | None:
    """Sentence BLEU from 0 to 1 by the library ``sacrebleu``; None for an empty reference.

    Its words are separated by spaces, so a reference in a script without them is not scored.
    """
    if not reference.strip() or without_spaces(reference):
        return None
    need("sacrebleu", "evals", "BLEU")
    from sacrebleu import sentence_bleu

    return float(sentence_bleu(text, [reference]).score) / 100
