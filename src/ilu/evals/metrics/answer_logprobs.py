"""What a model says of every token of known answers: read once, whatever is then measured.

Every example goes through the model once, the same one twice or not; the metrics are pure functions
of what is read.
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


class Read(NamedTuple):
    """Each token of one answer: itself, its log-probability, whether it was the likeliest."""

    ids: Int[Tensor, " S"]
    logp: Float[Tensor, " S"]
    first: Bool[Tensor, " S"]


def read_answers(lm: LM, examples: Sequence[Example], *, batch_size: int, name: str) -> list[Read]:
    """Read every example; ``name`` of the data is for the error if one does not fit the model."""
    check_lengths(examples, context_length(lm.model), name)
    keys = [(tuple(e.ids), e.prompt) for e in examples]
    # Of similar length together, the longest first: memory runs out at once or never.
    unique = sorted(dict.fromkeys(keys), key=lambda key: -len(key[0]))
    found: dict[tuple[tuple[int, ...], int], Read] = {}
    for start in range(0, len(unique), batch_size):
        batch = unique[start : start + batch_size]
        rows = read_batch(lm, [Example(list(ids), prompt) for ids, prompt in batch])
        found |= zip(batch, rows, strict=True)
    return [found[key] for key in keys]


@torch.no_grad()
def read_batch(lm: LM, examples: Sequence[Example]) -> list[Read]:
    """One forward pass; prompts and padding are left out of what is returned."""
    device = next(lm.model.parameters()).device
    out = ModelForward(lm.model)(collate(examples).to(device))
    logp, valid = token_logp(out.logits, out.targets)
    parts = (out.targets, logp, out.logits.argmax(-1) == out.targets)
    rows = zip(*(part.cpu() for part in parts), valid.cpu(), strict=True)
    return [Read(t[v], p[v], f[v]) for t, p, f, v in rows]


def without_end(read: Read, end: int | None) -> Read:
    """The answer without the token that ends the text, which says nothing of what is known."""
    if end is None or not len(read.ids) or int(read.ids[-1]) != end:
        return read
    return Read(*(part[:-1] for part in read))
