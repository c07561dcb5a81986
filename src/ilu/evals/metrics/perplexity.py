"""Perplexity of text: strided, per token of a document, or per word."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp, inf, sqrt
from typing import ClassVar, Literal, NamedTuple

import torch

from ilu.data.splits import limited
from ilu.data.stream import check_lengths, collate
from ilu.data.text import Passages
from ilu.data.tokenize import ids_of
from ilu.models.blocks import context_length
from ilu.models.forward import ModelForward
from ilu.system.checks import check_finite, check_limit
from ilu.system.scores import Score
from ilu.types import LM, Example, Source

LONGEST = 1024
"""Tokens of a window, unless the model takes fewer."""
LARGEST = 709.0
"""exp overflows beyond this."""


class Counted(NamedTuple):
    """Negative log-likelihood of a piece of text, in nats, and its number of tokens or words."""

    nll: float
    units: int


@dataclass(frozen=True)
class StridedPerplexity:
    """exp of the loss per token of one long text, read in overlapping windows.

    The passages are joined by blank lines. Each window begins ``stride`` tokens after the previous
    one (default: half its length). It scores only tokens that no earlier window has scored, so each
    token has at least length - stride tokens of context. The first token of the text is not scored.
    Items are windows, in nats per token. Windows of one text are not independent, so the error is a
    lower bound.
    """

    texts: Passages
    stride: int | None = None
    length: int | None = None
    batch_size: int = 4
    higher_is_better: ClassVar[bool] = False

    def __call__(self, lm: LM) -> Score:
        (ids,) = ids_of(lm.tokenizer, ["\n\n".join(self.texts())], special=True)
        length = window_length(lm, self.length)
        stride = length // 2 if self.stride is None else self.stride
        if not 1 <= stride < length:
            raise ValueError(f"a stride of {stride}: it must be from 1 to {length - 1}")
        return perplexity(count(lm, list(windows(ids, length, stride)), self.batch_size))


@dataclass(frozen=True)
class DocumentPerplexity:
    """exp of the loss per token or per word of separate passages.

    With ``per="word"`` it is ``word_perplexity`` of lm-evaluation-harness: the likelihood of the
    tokens divided by the number of words, which is comparable across tokenizers. A text longer than
    the window continues in the next window, with one token of context. A text begins with the
    tokenizer's begin-of-text token, or else with its end-of-text token; this token is not scored.
    The harness puts the end-of-text token before the begin-of-text token and scores the latter.
    """

    texts: Passages
    per: Literal["token", "word"] = "token"
    length: int | None = None
    batch_size: int = 4
    higher_is_better: ClassVar[bool] = False

    def __call__(self, lm: LM) -> Score:
        texts, length = self.texts(), window_length(lm, self.length)
        parts = [list(windows(with_first_token(lm, text), length, length - 1)) for text in texts]
        counted = iter(count(lm, [p for part in parts for p in part], self.batch_size))
        texts_nll = [added([next(counted) for _ in part]) for part in parts]
        if self.per == "word":
            pairs = zip(texts_nll, texts, strict=True)
            texts_nll = [Counted(c.nll, len(t.split())) for c, t in pairs]
        return perplexity(texts_nll)


@dataclass(frozen=True)
class ExamplePerplexity:
    """exp of the loss per labelled token of training examples; ``limit`` draws some of them."""

    source: Source
    limit: int | None = None
    batch_size: int = 16
    higher_is_better: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_limit(self.limit)

    def __call__(self, lm: LM) -> Score:
        examples = limited(self.source(lm.tokenizer), self.limit)
        check_lengths(examples, context_length(lm.model), "`data`")
        return perplexity(count(lm, examples, self.batch_size))


def perplexity(pieces: Sequence[Counted]) -> Score:
    """exp(all nats / all units). An item is the nats per unit of one piece.

    The error is that of a ratio of sums, propagated through exp to first order.
    """
    scored = [p for p in pieces if p.units]
    if not scored:
        raise ValueError("perplexity: there are no items with a token to predict")
    mean = sum(p.nll for p in scored) / sum(p.units for p in scored)
    value = check_finite(exp(mean) if mean < LARGEST else inf, "the perplexity")
    n, units = len(scored), sum(p.units for p in scored) / len(scored)
    squares = sum((p.nll - mean * p.units) ** 2 for p in scored)
    error = sqrt(squares / (n * (n - 1))) / units if n > 1 else 0.0
    items = tuple(p.nll / p.units if p.units else None for p in pieces)
    return Score(value, value * error, n, items, items.count(None))


def windows(ids: Sequence[int], length: int, stride: int) -> Iterator[Example]:
    """Overlapping windows of ids. Only tokens after the end of the previous window have a loss."""
    done = 1
    for start in range(0, len(ids), stride):
        end = min(start + length, len(ids))
        if end > done:
            yield Example(list(ids[start:end]), prompt=done - start)
        done = max(done, end)


@torch.no_grad()
def count(lm: LM, examples: Sequence[Example], batch_size: int) -> list[Counted]:
    """Likelihood of the tokens that each window scores."""
    forward, device = ModelForward(lm.model), next(lm.model.parameters()).device
    counted: list[Counted] = []
    for start in range(0, len(examples), batch_size):
        rows = examples[start : start + batch_size]
        nlls = (-forward.tokens(collate(rows).to(device)).sum()).tolist()
        counted += [
            Counted(n, len(e.ids) - max(e.prompt, 1)) for n, e in zip(nlls, rows, strict=True)
        ]
    return counted


def added(pieces: Sequence[Counted]) -> Counted:
    """The pieces of one text together."""
    return Counted(sum(p.nll for p in pieces), sum(p.units for p in pieces))


def with_first_token(lm: LM, text: str) -> list[int]:
    """Token ids of a text with a begin-of-text token in front, so that its first word is scored."""
    (ids,) = ids_of(lm.tokenizer, [text], special=True)
    first = lm.tokenizer.bos_token_id
    if first is not None and ids[:1] == [first]:
        return ids
    first = lm.tokenizer.eos_token_id if first is None else first
    return ids if first is None else [first, *ids]


def window_length(lm: LM, length: int | None) -> int:
    """Tokens of a window: ``length``, or else the model's context up to ``LONGEST``."""
    limit = context_length(lm.model)
    if length is not None and limit is not None and length > limit:
        raise ValueError(f"a window of {length} tokens: this model takes {limit}")
    return length or min(limit or LONGEST, LONGEST)
