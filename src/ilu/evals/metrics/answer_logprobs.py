"""Log-probabilities of the tokens of known answers, from one forward pass for all metrics.

Equal examples share one row of that pass. The metrics are pure functions of its results.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ilu.data.stream import check_lengths, collate
from ilu.models.blocks import context_length
from ilu.models.forward import ModelForward
from ilu.models.token_math import token_logp
from ilu.types import LM, Example


class AnswerTokens(NamedTuple):
    """The tokens of one answer: id, log-probability, and whether it was the likeliest."""

    ids: Int[Tensor, " S"]
    logp: Float[Tensor, " S"]
    first: Bool[Tensor, " S"]


def read_answers(
    lm: LM, examples: Sequence[Example], *, batch_size: int, name: str
) -> list[AnswerTokens]:
    """Read every example; the error for one that is too long calls the data ``name``."""
    check_lengths(examples, context_length(lm.model), name)
    keys = [(tuple(e.ids), e.prompt) for e in examples]
    # Sorted by length, the longest first: if memory does not suffice, the first batch fails.
    unique = sorted(dict.fromkeys(keys), key=lambda key: -len(key[0]))
    by_example: dict[tuple[tuple[int, ...], int], AnswerTokens] = {}
    for start in range(0, len(unique), batch_size):
        batch = unique[start : start + batch_size]
        rows = read_batch(lm, [Example(list(ids), prompt) for ids, prompt in batch])
        by_example |= zip(batch, rows, strict=True)
    return [by_example[key] for key in keys]


@torch.no_grad()
def read_batch(lm: LM, examples: Sequence[Example]) -> list[AnswerTokens]:
    """One forward pass. The result omits prompts and padding."""
    device = next(lm.model.parameters()).device
    out = ModelForward(lm.model)(collate(examples).to(device))
    logp, valid = token_logp(out.logits, out.targets)
    parts = (out.targets, logp, out.logits.argmax(-1) == out.targets)
    rows = zip(*(part.cpu() for part in parts), valid.cpu(), strict=True)
    return [AnswerTokens(t[v], p[v], f[v]) for t, p, f, v in rows]


def words_of(read: AnswerTokens, example: Example) -> AnswerTokens:
    """The answer of an example without its end, which carries no knowledge."""
    return AnswerTokens(*(part[: len(part) - example.end] for part in read))
