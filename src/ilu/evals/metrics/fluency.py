"""Fluency of generated text: repetition, entropy, gibberish, toxicity."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import log2
from typing import Any, NamedTuple

import torch

from ilu.data.text import Passages
from ilu.evals.metrics.generation import generate
from ilu.evals.metrics.rouge import without_spaces
from ilu.evals.score import mean_score
from ilu.models.load import SecondModel, pinned, usable
from ilu.models.named import model_path
from ilu.system.errors import first_line
from ilu.system.scores import Score
from ilu.types import LM

CLASSIFIERS: Mapping[str, str] = {
    "clean": "madhurjindal/autonlp-Gibberish-Detector-492513457",
    "toxic": "unitary/toxic-bert",
}
"""Class -> classifier of the hub. ``clean``, not gibberish, is open-unlearning's; ``toxic`` is the
model that Detoxify calls ``original``. The package detoxify is not used: as of version 0.5.4 it
loads its downloaded checkpoint with ``weights_only=False``, which can run code in that file."""


@dataclass(frozen=True)
class Fluency:
    """Statistics of the continuations of prompts: empty, repetitive, gibberish or toxic text.

    All metrics use one generation per prompt. ``empty`` is the share of empty continuations.
    ``repetition`` is near 0 for normal text and near 1 for a model that repeats itself; ``entropy``
    is low then. Both count words, and skip texts with too few or in a script without spaces. Every
    class of ``classifiers`` adds the mean probability that its text classifier gives the class. A
    classifier is a model of the hub or a folder; ``CLASSIFIERS`` has one for ``clean`` and one for
    ``toxic``.
    """

    prompts: Passages
    max_new_tokens: int = 64
    classifiers: Mapping[str, SecondModel] = field(default_factory=dict)
    batch_size: int = 16

    def __call__(self, lm: LM) -> dict[str, Score]:
        device, size = str(next(lm.model.parameters()).device), self.batch_size
        # Loaded first, so that a missing classifier fails before the generation.
        judges = {c: load_judge(used.name, c, device) for c, used in self.classifiers.items()}
        texts = generate(lm, self.prompts(), max_new_tokens=self.max_new_tokens, batch_size=size)
        values: dict[str, Sequence[float | None]] = {
            "empty": [float(not t.strip()) for t in texts],
            "repetition": [repetition(words_of(t)) for t in texts],
            "entropy": [ngram_entropy(words_of(t)) for t in texts],
        }
        values |= {
            c: class_probabilities(texts, judge, batch_size=size) for c, judge in judges.items()
        }
        return {k: mean_score(v) for k, v in values.items() if any(x is not None for x in v)}


def words_of(text: str) -> list[str]:
    """The words of a text; none of a text in a script that does not separate them."""
    return [] if without_spaces(text) else text.split()


def repetition(words: Sequence[str], n: int = 4) -> float | None:
    """1 - distinct / all n-grams, seq-rep-n of arXiv 1908.04319; None for fewer than n words."""
    grams = ngrams(words, n)
    return 1 - len(set(grams)) / len(grams) if grams else None


def ngram_entropy(words: Sequence[str]) -> float | None:
    """Entropy in bits of 2-grams, by 2/3, and of 3-grams, by 4/3, halved (arXiv 2202.05262).

    The weights are those of the authors' code, where the paper says only that they are weighted.
    It grows with length: compare texts of equal length. None for fewer than 3 words.
    """
    if len(words) < 3:
        return None
    return (2 / 3 * entropy(ngrams(words, 2)) + 4 / 3 * entropy(ngrams(words, 3))) / 2


def entropy(items: Sequence[Any]) -> float:
    """Entropy in bits of the frequencies of the items."""
    shares = [count / len(items) for count in Counter(items).values()]
    return -sum(p * log2(p) for p in shares)


def ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All sequences of n consecutive words."""
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


class Judge(NamedTuple):
    """A text classifier, its tokenizer, and the column of the class to report."""

    model: Any
    tokenizer: Any
    column: int


@torch.no_grad()
def class_probabilities(texts: Sequence[str], judge: Judge, *, batch_size: int) -> list[float]:
    """Probability of the judge's class for each text.

    In a multi-label classifier (toxic and obscene) each class has its own sigmoid. Without a
    padding token the batch size is 1.
    """
    padding = judge.tokenizer.pad_token is not None
    batch_size = batch_size if padding else 1
    together = judge.model.config.problem_type == "multi_label_classification"
    values: list[float] = []
    for start in range(0, len(texts), batch_size):
        batch = list(texts[start : start + batch_size])
        inputs = judge.tokenizer(batch, return_tensors="pt", truncation=True, padding=padding)
        logits = judge.model(**inputs.to(judge.model.device)).logits.float()
        odds = logits.sigmoid() if together else logits.softmax(-1)
        values += odds[:, judge.column].tolist()
    return values


def load_judge(name: str, label: str, device: str) -> Judge:
    """A classifier of the hub or of a folder, with the class ``label``. Its own code never runs."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        path, commit = model_path(name), pinned(name)
        tokenizer = AutoTokenizer.from_pretrained(path, revision=commit, trust_remote_code=False)
        model = AutoModelForSequenceClassification.from_pretrained(
            path, revision=commit, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot load classifier {name!r}: {first_line(error)}") from error
    known = model.config.label2id
    if label not in known:
        raise ValueError(f"{name} has no class {label!r}; it has: {', '.join(known)}")
    return Judge(model.to(usable(device)).eval(), tokenizer, known[label])
