"""Perplexity of running text, under the three names that differ."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp, inf, sqrt
from typing import ClassVar, Literal, NamedTuple

import torch

from ilu.data.stream import collate
from ilu.data.text import Passages
from ilu.models.blocks import context_length
from ilu.models.forward import ModelForward
from ilu.scores import Score
from ilu.system.checks import check_finite
from ilu.types import LM, Example

LONGEST = 1024
"""Tokens of a window, unless the model takes fewer."""
LARGEST = 709.0
"""exp of more has no number."""


class Counted(NamedTuple):
    """Negative log-likelihood of a piece of text, in nats, over so many units."""

    nll: float
    units: int


@dataclass(frozen=True)
class StridedPerplexity:
    """exp of the loss per token of one long text, read in overlapping windows.

    The passages are joined by blank lines. Each window begins ``stride`` tokens after the
    last, by default half its length, and scores only tokens that no window has scored, so that each
    is seen after at least length - stride others. The first token of all is not scored. Items are
    windows, in nats per token; those of one text are not independent: the error is a lower bound.
    """

    texts: Passages
    stride: int | None = None
    length: int | None = None
    batch_size: int = 4
    higher_is_better: ClassVar[bool] = False

    def __call__(self, lm: LM) -> Score:
        ids = list(lm.tokenizer("\n\n".join(self.texts())).input_ids)
        length = window_length(lm, self.length)
        stride = length // 2 if self.stride is None else self.stride
        if not 1 <= stride < length:
            raise ValueError(f"a stride of {stride}: it must be from 1 to {length - 1}")
        return perplexity(count(lm, list(windows(ids, length, stride)), self.batch_size))


@dataclass(frozen=True)
class DocumentPerplexity:
    """exp of the loss per token or per word, each passage on its own.

    Per ``word`` as in ``word_perplexity`` of lm-evaluation-harness, which reads whole articles:
    likelihood is of tokens, and words only what it is divided by, so that tokenizers can be
    compared. A text longer than the window goes on in the next one, of which one token is
    context. A text begins with the tokenizer's own first token, or else with its end-of-text token,
    and this one is not scored; the harness puts it in front of the tokenizer's own and scores that.
    """

    texts: Passages
    per: Literal["token", "word"] = "token"
    length: int | None = None
    batch_size: int = 4
    higher_is_better: ClassVar[bool] = False

    def __call__(self, lm: LM) -> Score:
        texts, length = self.texts(), window_length(lm, self.length)
        parts = [list(windows(begun(lm, text), length, length - 1)) for text in texts]
        counted = iter(count(lm, [p for part in parts for p in part], self.batch_size))
        whole = [added([next(counted) for _ in part]) for part in parts]
        if self.per == "word":
            whole = [Counted(c.nll, len(t.split())) for c, t in zip(whole, texts, strict=True)]
        return perplexity(whole)


def perplexity(pieces: Sequence[Counted]) -> Score:
    """exp(all nats / all units); an item is one piece's nats per unit.

    The error is that of a ratio of sums, carried over by the slope of exp.
    """
    scored = [p for p in pieces if p.units]
    if not scored:
        raise ValueError("perplexity: there is no text with a token to predict")
    mean = sum(p.nll for p in scored) / sum(p.units for p in scored)
    value = check_finite(exp(mean) if mean < LARGEST else inf, "the perplexity")
    n, units = len(scored), sum(p.units for p in scored) / len(scored)
    squares = sum((p.nll - mean * p.units) ** 2 for p in scored)
    error = sqrt(squares / (n * (n - 1))) / units if n > 1 else 0.0
    items = tuple(p.nll / p.units if p.units else None for p in pieces)
    return Score(value, value * error, n, items, items.count(None))


def windows(ids: Sequence[int], length: int, stride: int) -> Iterator[Example]:
    """Cut ids into windows of which only what comes after the last one's end takes a loss."""
    done = 1
    for start in range(0, len(ids), stride):
        end = min(start + length, len(ids))
        if end > done:
            yield Example(list(ids[start:end]), prompt=done - start)
        done = max(done, end)


@torch.no_grad()
def count(lm: LM, examples: Sequence[Example], batch_size: int) -> list[Counted]:
    """Likelihood of each window's own tokens."""
    forward, device = ModelForward(lm.model), next(lm.model.parameters()).device
    found: list[Counted] = []
    for start in range(0, len(examples), batch_size):
        rows = examples[start : start + batch_size]
        nlls = (-forward.tokens(collate(rows).to(device)).sum()).tolist()
        found += [Counted(n, len(e.ids) - e.prompt) for n, e in zip(nlls, rows, strict=True)]
    return found


def added(pieces: Sequence[Counted]) -> Counted:
    """The pieces of one text together."""
    return Counted(sum(p.nll for p in pieces), sum(p.units for p in pieces))


def begun(lm: LM, text: str) -> list[int]:
    """Token ids of a text after the token that begins it, so that its first word is scored."""
    ids = list(lm.tokenizer(text).input_ids)
    first = lm.tokenizer.bos_token_id
    if first is not None and ids[:1] == [first]:
        return ids
    first = lm.tokenizer.eos_token_id if first is None else first
    return ids if first is None else [first, *ids]


def window_length(lm: LM, wanted: int | None) -> int:
    """Tokens of a window: as wanted, or as many as the model takes up to ``LONGEST``."""
    limit = context_length(lm.model)
    if wanted is not None and limit is not None and wanted > limit:
        raise ValueError(f"a window of {wanted} tokens: this model takes {limit}")
    return wanted or min(limit or LONGEST, LONGEST)
