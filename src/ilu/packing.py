"""Texts one after another in one row, where nothing is padded: each attends to itself alone."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.nn.functional import pad

from ilu.types import Batch

EACH_TEXT = "ilu_each_text"
"""The name of our attention among those of Transformers."""


def padded(batch: Batch) -> dict[str, Any]:
    """What a model reads of ``batch`` as it is."""
    return {
        "input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "use_cache": False,
    }  # fmt: skip


def packed(batch: Batch) -> dict[str, Any]:
    """What it reads without the padding."""
    kept = batch.attention_mask.bool()
    positions = torch.arange(kept.shape[1], device=kept.device).expand_as(kept)
    return {
        "input_ids": in_row(batch.input_ids, batch),
        "attention_mask": None,
        "position_ids": in_row(positions, batch),
        "cu_seq_lens_q": pad(kept.sum(1).cumsum(0), (1, 0)).cpu(),  # read in every block
        "use_cache": False,
    }


def in_row(values: Shaped[Tensor, "B T *rest"], batch: Batch) -> Shaped[Tensor, "1 N *rest"]:
    """Values of tokens, without those of padding."""
    return values[batch.attention_mask.bool()][None]


def spread(row: Shaped[Tensor, "1 N *rest"], batch: Batch) -> Shaped[Tensor, "B T *rest"]:
    """What a packed row gave, each text in a row of its own; 0 where there is padding."""
    kept = batch.attention_mask.bool()
    return row.new_zeros(*kept.shape, *row.shape[2:]).index_put((kept,), row[0])


@contextmanager
def attending_to_each_text(model: nn.Module, wanted: bool) -> Generator[None]:
    """Let ``model`` read packed rows as well as padded ones.

    Raises ValueError where its attention cannot be told to, which is tried on two texts.
    """
    if not wanted:
        yield
        return
    config: Any = model.config
    own, alone = config._attn_implementation, read_alone(model)
    register()
    config._attn_implementation = EACH_TEXT
    try:
        if not gives(model, alone):
            raise ValueError(
                f"--pack: the attention of {type(model).__name__} cannot be kept within each text. "
                "Leave --pack out"
            )
        yield
    finally:
        config._attn_implementation = own


def gives(model: nn.Module, alone: Sequence[Tensor]) -> bool:
    """Whether two texts in one row are read as they are ``alone``."""
    try:
        found = read_packed(model)
    except (TypeError, ValueError, AttributeError, IndexError, RuntimeError):
        return False
    rough = 1e-4 if alone[0].element_size() >= 4 else 3e-2
    pairs = zip(alone, found, strict=True)
    return all((a - b).abs().max() <= rough * a.abs().max() for a, b in pairs)


def register() -> None:
    """Make our attention known to Transformers."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(EACH_TEXT, each_text)
    AttentionMaskInterface.register(EACH_TEXT, mask_of_padding)


def each_text(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor | None = None,
    sliding_window: int | None = None,
    **how: Any,
) -> tuple[Tensor, None]:
    """Scaled dot product attention, on a packed row once for each of its texts.

    That costs the sum of the squared lengths, which a mask over the whole row would not. Raises
    ValueError for a text longer than a window, that only a mask could cut.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward as attention

    if cu_seq_lens_q is None:
        return attention(module, query, key, value, attention_mask, **how)
    bounds = [*pairwise(cu_seq_lens_q.tolist())]
    longest = max(end - start for start, end in bounds)
    if sliding_window is not None and longest > sliding_window:
        raise ValueError(
            f"--pack has no window: the model attends to {sliding_window} tokens, and a text has "
            f"{longest}. Leave --pack out, or cut with --truncate {sliding_window}"
        )
    parts = [
        attention(module, query[:, :, a:b], key[:, :, a:b], value[:, :, a:b], None, **how)[0]
        for a, b in bounds
    ]
    return torch.cat(parts, dim=1), None


def mask_of_padding(*, attention_mask: Tensor | None = None, **how: Any) -> Tensor | None:
    """The mask of a padded batch; none of a packed row, whose texts are read one by one."""
    from transformers.masking_utils import sdpa_mask

    return None if attention_mask is None else sdpa_mask(attention_mask=attention_mask, **how)


@torch.no_grad()
def read_alone(model: nn.Module) -> list[Tensor]:
    """Logits of two texts, each read by itself."""
    texts, device = ([1, 0, 1], [0, 1, 1, 0, 0]), next(model.parameters()).device
    ids = (torch.tensor([text], device=device) for text in texts)
    return [model(input_ids=each, use_cache=False).logits for each in ids]


@torch.no_grad()
def read_packed(model: nn.Module) -> list[Tensor]:
    """Logits of the same two from one row."""
    ids = torch.tensor([[1, 0, 1, 0, 0], [0, 1, 1, 0, 0]], device=next(model.parameters()).device)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).to(ids)
    row = model(**packed(Batch(ids, mask, ids))).logits
    return [row[:, :3], row[:, 3:]]
