"""Multiple choice by log-likelihood."""

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ilu.data.stream import collate
from ilu.data.tokenize import encode_pairs
from ilu.evals.score import mean_score
from ilu.models.blocks import context_length
from ilu.models.lm_head import logits_at, takes_positions
from ilu.models.token_math import at_least_float32
from ilu.types import LM, Example, Question, Questions, Score

MOST_OPTIONS = 10
"""Up to so many options that all questions share are counted one by one: letters and labels."""


class Wanted(NamedTuple):
    """The log-probability of one option, read off the row it shares with others."""

    question: int
    option: int
    tokens: tuple[int, ...]


Row = tuple[tuple[int, ...], list[Wanted]]
"""A context to run, with the options that are read off it."""
Logps = list[list[float | None]]
"""Log-likelihood of every option of every question; None for one that adds no token of its own."""
Picked = list[int | None]
"""The option taken for each question; None where one of its options has no likelihood."""


@dataclass(frozen=True)
class Choice:
    """Accuracy when the most likely option is taken, ``acc`` of lm-evaluation-harness.

    Options are scored by the sum over their tokens, without length normalisation. Forget quality is
    1 minus this accuracy (arXiv 2506.01339).
    """

    questions: Questions
    batch_size: int = 128
    higher_is_better: ClassVar[bool] = True

    def __call__(self, lm: LM) -> Score:
        asked = self.questions()
        return accuracy(picked(option_logps(lm, asked, batch_size=self.batch_size)), asked)


@dataclass(frozen=True)
class ChoiceReport:
    """All that one pass over multiple-choice questions says: accuracy, and which options are taken.

    ``acc``, and where options differ in length ``acc_norm`` (the log-likelihood per character), as
    lm-evaluation-harness names them. Where all questions choose among the same few single signs, as
    letters, ``picks_A`` and so on are the shares of questions for which that one is taken: a model
    may lose its accuracy by answering B to everything, and still know. ``name`` stands in front.
    """

    name: str
    questions: Questions
    batch_size: int = 16

    def __call__(self, lm: LM) -> dict[str, Score]:
        asked = self.questions()
        logps = option_logps(lm, asked, batch_size=self.batch_size)
        found = {"acc": accuracy(picked(logps), asked)}
        if any(len(set(map(len, q.options))) > 1 for q in asked):
            found["acc_norm"] = accuracy(picked(per_character(logps, asked)), asked)
        found |= {f"picks_{k}": s for k, s in picks(picked(logps), asked).items()}
        return {f"{self.name}_{k}": score for k, score in found.items()}


def accuracy(taken: Picked, asked: Sequence[Question]) -> Score:
    """Share of questions whose right option is taken; those without a known answer do not count."""
    pairs = zip(taken, asked, strict=True)
    right = [None if None in (t, q.answer) else float(t == q.answer) for t, q in pairs]
    return mean_score(right)._replace(chance=chance(right, asked))


def chance(right: Sequence[float | None], asked: Sequence[Question]) -> float:
    """Accuracy of guessing at random on the questions that were scored."""
    shares = [1 / len(q.options) for r, q in zip(right, asked, strict=True) if r is not None]
    return sum(shares) / len(shares)


def picks(taken: Picked, asked: Sequence[Question]) -> dict[str, Score]:
    """For every option the share of questions for which it is taken, where all have the same few.

    Empty elsewhere, for a single question, and for options longer than a sign: texts of answers
    are no names of scores, which a published card would tell.
    """
    names = list(dict.fromkeys(option for q in asked for option in q.options))
    same = len(asked) > 1 and all(set(q.options) == set(names) for q in asked)
    if not same or len(names) > MOST_OPTIONS or any(len(n.strip()) > 1 for n in names):
        return {}
    chosen = [None if t is None else q.options[t] for t, q in zip(taken, asked, strict=True)]
    shares = ([None if c is None else float(c == name) for c in chosen] for name in names)
    return {n.strip(): mean_score(share) for n, share in zip(names, shares, strict=True)}


def picked(logps: Logps) -> Picked:
    """The most likely option of each question, the first of equals."""
    return [
        None if None in row else row.index(max(p for p in row if p is not None)) for row in logps
    ]


def per_character(logps: Logps, asked: Sequence[Question]) -> Logps:
    """Log-likelihoods divided by the length of their option without its space (``acc_norm``)."""
    lengths = ([len(option.removeprefix(" ")) for option in q.options] for q in asked)
    return [
        [None if p is None else p / max(n, 1) for p, n in zip(row, ns, strict=True)]
        for row, ns in zip(logps, lengths, strict=True)
    ]


@torch.no_grad()
def option_logps(lm: LM, asked: Sequence[Question], *, batch_size: int) -> Logps:
    """Log-likelihood of every option of every question; None, with a warning, if it does not fit.

    Options that differ in their last token only share one forward pass, so single-token options
    cost one pass per question; the output layer sees the positions that predict an option's tokens.
    """
    logps: Logps = [[None] * len(q.options) for q in asked]
    device, only = next(lm.model.parameters()).device, takes_positions(lm.model)
    for rows in batches(
        fitting(rows_of(lm.tokenizer, asked), context_length(lm.model)), batch_size
    ):
        width = max(len(w.tokens) for _, wanted in rows for w in wanted)
        last = torch.tensor([[len(row)] for row, _ in rows])
        positions = (last + torch.arange(-width, 0)).clamp_min(0).to(device)
        batch = collate([Example(list(row), prompt=0) for row, _ in rows]).to(device)
        sums = option_sums(logits_at(lm.model, batch, positions, only=only), rows)
        for w, logp in zip((w for _, wanted in rows for w in wanted), sums, strict=True):
            logps[w.question][w.option] = logp
    return logps


def option_sums(logits: Float[Tensor, "B K V"], rows: Sequence[Row]) -> list[float]:
    """Log-likelihood of each option of each row: logits at its last K positions, summed."""
    width = logits.shape[1]
    places = [
        (i, width - len(w.tokens) + k, token)
        for i, (_, wanted) in enumerate(rows)
        for w in wanted
        for k, token in enumerate(w.tokens)
    ]
    row, position, token = torch.tensor(places, device=logits.device).unbind(-1)
    logits = at_least_float32(logits)
    logps = logits[row, position, token] - logits.logsumexp(-1)[row, position]
    if logps.isnan().any():  # whose largest would be the first option
        raise ValueError("the likelihood of an option is not a number: is the model damaged?")
    each = iter(logps.tolist())
    return [sum(islice(each, len(w.tokens))) for _, wanted in rows for w in wanted]


def rows_of(tokenizer: Any, asked: Sequence[Question]) -> dict[tuple[int, ...], list[Wanted]]:
    """The contexts to run, each with the options that are read off it."""
    rows: dict[tuple[int, ...], list[Wanted]] = defaultdict(list)
    places = [(i, k) for i, q in enumerate(asked) for k in range(len(q.options))]
    prompts = [asked[i].context(k) for i, k in places]
    pairs = encode_pairs(tokenizer, prompts, [asked[i].options[k] for i, k in places])
    for (i, k), (head, tail) in zip(places, pairs, strict=True):
        if head and tail:
            rows[(*head, *tail[:-1])].append(Wanted(i, k, tuple(tail)))
    return rows


def fitting(rows: Mapping[tuple[int, ...], list[Wanted]], limit: int | None) -> list[Row]:
    """The contexts that the model has room for; nothing is ever cut."""
    kept = [(row, wanted) for row, wanted in rows.items() if limit is None or len(row) <= limit]
    if len(kept) < len(rows):
        warnings.warn(
            f"{len(rows) - len(kept)} of {len(rows)} contexts are longer than the model's {limit} "
            "tokens: their questions are not scored",
            stacklevel=2,
        )
    return kept


def batches(rows: Sequence[Row], size: int) -> Iterator[Sequence[Row]]:
    """Rows of similar length together, longest first."""
    items = sorted(rows, key=lambda row: -len(row[0]))
    for start in range(0, len(items), size):
        yield items[start : start + size]
