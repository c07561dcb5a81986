"""Multiple choice by log-likelihood."""

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ilu.data.tokenize import encode_pairs
from ilu.evals.metrics.option_rows import (
    Context,
    OptionInRow,
    Row,
    inputs,
    reads_branches,
    rows,
)
from ilu.evals.score import mean_score
from ilu.models.blocks import context_length
from ilu.models.lm_head import logits_of, takes_positions
from ilu.models.token_math import at_least_float32
from ilu.system.scores import Score
from ilu.types import LM, Question, Questions

MOST_OPTIONS = 10
"""Shares of options are reported for at most this many options, such as letters and labels."""


Logps = list[list[float | None]]
"""Log-likelihood of every option of every question; None for an option without tokens of its
own."""
Choices = list[int | None]
"""The chosen option of each question; None where one of its options has no likelihood."""


@dataclass(frozen=True)
class Choice:
    """Accuracy of choosing the most likely option, ``acc`` of lm-evaluation-harness.

    Options are scored by the sum over their tokens, without length normalisation. On
    forget questions, ``forgotten`` is 1 minus this accuracy (arXiv 2506.01339).
    """

    questions: Questions
    batch_size: int = 128
    higher_is_better: ClassVar[bool] = True

    def __call__(self, lm: LM) -> Score:
        questions = self.questions()
        return accuracy(picked(option_logps(lm, questions, batch_size=self.batch_size)), questions)


@dataclass(frozen=True)
class ChoiceReport:
    """Accuracy and shares of the chosen options, from one pass over multiple-choice questions.

    ``acc``, and ``acc_norm`` (by log-likelihood per character) where options differ in length, as
    in lm-evaluation-harness. Where all questions have the same few single characters as options,
    ``picks_A`` etc. are the shares of questions for which that option is chosen: a model that
    answers B to every question has low accuracy and may still know the answers. All names begin
    with ``name``.
    """

    name: str
    questions: Questions
    batch_size: int = 16

    def __call__(self, lm: LM) -> dict[str, Score]:
        questions = self.questions()
        logps = option_logps(lm, questions, batch_size=self.batch_size)
        scores = {"acc": accuracy(picked(logps), questions)}
        if any(len(set(map(len, q.options))) > 1 for q in questions):
            scores["acc_norm"] = accuracy(picked(per_character(logps, questions)), questions)
        scores |= {f"picks_{k}": s for k, s in picks(picked(logps), questions).items()}
        return {f"{self.name}_{k}": score for k, score in scores.items()}


def accuracy(choices: Choices, questions: Sequence[Question]) -> Score:
    """Share of questions whose right option is chosen. Questions without an answer do not count."""
    pairs = zip(choices, questions, strict=True)
    right = [None if None in (t, q.answer) else float(t == q.answer) for t, q in pairs]
    return mean_score(right)._replace(chance=chance(right, questions))


def chance(right: Sequence[float | None], questions: Sequence[Question]) -> float:
    """Accuracy of guessing at random on the questions that were scored."""
    shares = [1 / len(q.options) for r, q in zip(right, questions, strict=True) if r is not None]
    return sum(shares) / len(shares)


def picks(choices: Choices, questions: Sequence[Question]) -> dict[str, Score]:
    """Share of questions for which each option is chosen, if all have the same few options.

    Empty otherwise, for a single question, and for options longer than a character: names of scores
    appear in published model cards, so they may not contain texts of answers.
    """
    names = list(dict.fromkeys(option for q in questions for option in q.options))
    same = len(questions) > 1 and all(set(q.options) == set(names) for q in questions)
    if not same or len(names) > MOST_OPTIONS or any(len(n.strip()) > 1 for n in names):
        return {}
    chosen = [None if t is None else q.options[t] for t, q in zip(choices, questions, strict=True)]
    shares = ([None if c is None else float(c == name) for c in chosen] for name in names)
    return {n.strip(): mean_score(share) for n, share in zip(names, shares, strict=True)}


def picked(logps: Logps) -> Choices:
    """The most likely option of each question; the first one of a tie."""
    return [
        None if None in row else row.index(max(p for p in row if p is not None)) for row in logps
    ]


def per_character(logps: Logps, questions: Sequence[Question]) -> Logps:
    """Log-likelihoods divided by the characters of the option without its space (``acc_norm``)."""
    lengths = ([len(option.removeprefix(" ")) for option in q.options] for q in questions)
    return [
        [None if p is None else p / max(n, 1) for p, n in zip(row, ns, strict=True)]
        for row, ns in zip(logps, lengths, strict=True)
    ]


@torch.no_grad()
def option_logps(lm: LM, questions: Sequence[Question], *, batch_size: int) -> Logps:
    """Log-likelihood of every option of every question; None, with a warning, if it is too long.

    Options that differ only in their last token share a context, so single-token options cost one
    context per question; the prompt of several contexts is read once (``option_rows``). The LM head
    runs only on the positions that predict an option's tokens. A batch has at most as many tokens
    as ``batch_size`` contexts.
    """
    logps: Logps = [[None] * len(q.options) for q in questions]
    device, only = next(lm.model.parameters()).device, takes_positions(lm.model)
    contexts = fitting(contexts_of(lm.tokenizer, questions), context_length(lm.model))
    longest = max((len(ids) for ids, _ in contexts), default=0)
    several = any(len(each.tokens) > 1 for _, options in contexts for each in options)
    shared = several and reads_branches(lm.model, longest)
    for batch in batches(rows(contexts, shared=shared, size=batch_size), batch_size):
        places = [row.places for row in batch]
        most = max(map(len, places))
        positions = torch.tensor([[p[0]] * (most - len(p)) + p for p in places], device=device)
        logits = logits_of(lm.model, inputs(batch, device), positions, only=only)
        options = [option for row in batch for option in row.options]
        for option, logp in zip(options, option_sums(logits, batch), strict=True):
            logps[option.question][option.option] = logp
    return logps


def option_sums(logits: Float[Tensor, "B K V"], batch: Sequence[Row]) -> list[float]:
    """Log-likelihood of each option of each row, from the logits at the places of the row."""
    last = logits.shape[1]
    found: list[tuple[int, int, int]] = []
    for i, row in enumerate(batch):
        index = {place: last - k for k, place in enumerate(reversed(row.places), start=1)}
        for option in row.options:
            pairs = zip(option.places, option.tokens, strict=True)
            found += [(i, index[place], token) for place, token in pairs]
    number, position, token = torch.tensor(found, device=logits.device).unbind(-1)
    logits = at_least_float32(logits)
    logps = logits[number, position, token] - logits.logsumexp(-1)[number, position]
    if logps.isnan().any():  # else the first option would be chosen
        raise ValueError("the likelihood of an option is not a number: is the model damaged?")
    each = iter(logps.tolist())
    return [sum(islice(each, len(o.tokens))) for row in batch for o in row.options]


def contexts_of(
    tokenizer: Any, questions: Sequence[Question]
) -> dict[tuple[int, ...], list[OptionInRow]]:
    """The contexts of all options, and the options of each."""
    found: dict[tuple[int, ...], list[OptionInRow]] = defaultdict(list)
    places = [(i, k) for i, q in enumerate(questions) for k in range(len(q.options))]
    prompts = [questions[i].context(k) for i, k in places]
    pairs = encode_pairs(tokenizer, prompts, [questions[i].options[k] for i, k in places])
    for (i, k), (head, tail) in zip(places, pairs, strict=True):
        if head and tail:
            found[(*head, *tail[:-1])].append(OptionInRow(i, k, tuple(tail)))
    warn_of_empty([i for (i, _), pair in zip(places, pairs, strict=True) if not all(pair)])
    return found


def warn_of_empty(questions: Sequence[int]) -> None:
    """Warn of the questions, by number, with an option or a context without a token."""
    if questions:
        warnings.warn(
            f"{len(set(questions))} questions have an option or a prompt without a token, the "
            f"first is question {questions[0] + 1}: they are not scored",
            stacklevel=2,
        )


def fitting(
    contexts: Mapping[tuple[int, ...], list[OptionInRow]], limit: int | None
) -> list[Context]:
    """The contexts that fit the model. Nothing is truncated."""
    kept = [
        (ids, options) for ids, options in contexts.items() if limit is None or len(ids) <= limit
    ]
    if len(kept) < len(contexts):
        warnings.warn(
            f"{len(contexts) - len(kept)} of {len(contexts)} contexts are longer than the model's "
            f"{limit} tokens: their questions are not scored",
            stacklevel=2,
        )
    return kept


def batches(found: Sequence[Row], size: int) -> Iterator[Sequence[Row]]:
    """Batches of rows of similar length, the longest first.

    No batch has more tokens, or more logits, than ``size`` contexts would have.
    """
    items = sorted(found, key=lambda row: -len(row.ids))
    most = size * max((len(o.tokens) for row in items for o in row.options), default=0)
    while items:
        first, logits, count = items[0], 0, 0
        room = size * (1 + max(first.positions))
        for row in items[:size]:
            logits = max(logits, len(row.places))
            if count and (len(first.ids) * (count + 1) > room or logits * (count + 1) > most):
                break
            count += 1
        yield items[:count]
        items = items[count:]
