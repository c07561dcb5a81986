"""Multiple choice by log-likelihood."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ilu.data import check_lengths, collate
from ilu.forward import ModelForward, context_length
from ilu.sources.pairs import encode_pairs
from ilu.types import LM, Example, Question, Questions, Score, mean_score


class Wanted(NamedTuple):
    """The log-probability of one option, read off the row it shares with others."""

    question: int
    option: int
    tokens: tuple[int, ...]


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
        logps = option_logps(lm, asked, batch_size=self.batch_size)
        taken = (max(range(len(row)), key=row.__getitem__) for row in logps)
        return mean_score([float(t == q.answer) for t, q in zip(taken, asked, strict=True)])


@torch.no_grad()
def option_logps(lm: LM, asked: Sequence[Question], *, batch_size: int) -> list[list[float]]:
    """Log-likelihood of every option of every question.

    Options that differ in their last token only share one forward pass, so single-token options
    cost one pass per question.
    """
    logps = [[0.0] * len(q.options) for q in asked]
    device = next(lm.model.parameters()).device
    forward = ModelForward(lm.model)
    for rows in batches(rows_of(lm.tokenizer, asked), batch_size):
        # One more token makes the last real position a prediction; which one does not matter.
        examples = [Example([*row, row[-1]], prompt=0) for row, _ in rows]
        check_lengths(examples, context_length(lm.model), "multiple choice")
        logits = forward(collate(examples).to(device)).logits
        for i, (row, wanted) in enumerate(rows):
            for w in wanted:
                read = logits[i, len(row) - len(w.tokens) : len(row)]
                logps[w.question][w.option] = sum_logp(read, w.tokens)
    return logps


def rows_of(tokenizer: Any, asked: Sequence[Question]) -> dict[tuple[int, ...], list[Wanted]]:
    """The contexts to run, each with the options that are read off it."""
    rows: dict[tuple[int, ...], list[Wanted]] = defaultdict(list)
    places = [(i, k) for i, q in enumerate(asked) for k in range(len(q.options))]
    prompts = [asked[i].prompt for i, _ in places]
    pairs = encode_pairs(tokenizer, prompts, [asked[i].options[k] for i, k in places])
    for (i, k), (head, tail) in zip(places, pairs, strict=True):
        rows[(*head, *tail[:-1])].append(Wanted(i, k, tuple(tail)))
    return rows


def batches(
    rows: dict[tuple[int, ...], list[Wanted]], size: int
) -> Iterator[list[tuple[tuple[int, ...], list[Wanted]]]]:
    """Rows of similar length together, longest first."""
    items = sorted(rows.items(), key=lambda item: -len(item[0]))
    for start in range(0, len(items), size):
        yield items[start : start + size]


def sum_logp(logits: Tensor, tokens: tuple[int, ...]) -> float:
    """Log-likelihood of ``tokens`` under one row of logits each."""
    logp = logits.float().log_softmax(-1)
    return logp[range(len(tokens)), list(tokens)].sum().item()
