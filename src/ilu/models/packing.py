"""The texts of a batch in one row without padding; each text attends only to itself."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.nn.functional import pad

from ilu.models.blocks import text_config
from ilu.types import Batch

EACH_TEXT = "ilu_each_text"
"""The name of our attention among those of Transformers."""
BY_PLACE = ("attn_temperature_tuning", "keep_window_size")
"""Settings of models whose attention depends on the position in the row, beyond some length."""


def padded(batch: Batch) -> dict[str, Any]:
    """The inputs of a model for a padded batch."""
    return {
        "input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "use_cache": False,
    }  # fmt: skip


def packed(batch: Batch) -> dict[str, Any]:
    """The inputs for the same batch in one row, without the padding."""
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
    """The outputs of a packed row as those of a padded batch; 0 at padding."""
    kept = batch.attention_mask.bool()
    return row.new_zeros(*kept.shape, *row.shape[2:]).index_put((kept,), row[0])


@contextmanager
def attending_to_each_text(model: nn.Module, wanted: bool) -> Generator[None]:
    """Keep the attention of ``model`` within each text of a packed row.

    Padded batches are read as before. ValueError for a model that cannot: one with a setting of
    ``BY_PLACE``, or one for which two texts in one row have other logits than each alone.
    """
    if not wanted:
        yield
        return
    config: Any = model.config
    own, alone = attention_of(config), read_alone(model)
    register()
    config._attn_implementation = EACH_TEXT
    try:
        if any(getattr(text_config(model), n, None) for n in BY_PLACE) or not gives(model, alone):
            raise ValueError(
                f"`pack`: the attention of {type(model).__name__} cannot be kept within each text. "
                "Leave `pack` out"
            )
        yield
    finally:
        config._attn_implementation = own


def attention_of(config: Any) -> dict[str, str]:
    """The kind of attention of a model and of its parts, as the same attribute takes it."""
    parts = {name: getattr(config, name, None) for name in config.sub_configs}
    own = {name: part._attn_implementation for name, part in parts.items() if part is not None}
    return {"": config._attn_implementation, **own}


def gives(model: nn.Module, alone: Sequence[Tensor]) -> bool:
    """Whether two texts in one row have the logits that each has ``alone``, in float32."""
    try:
        found = read_packed(model)
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, AttributeError, IndexError, RuntimeError):
        return False
    pairs = zip(alone, found, strict=True)
    return all((a - b).abs().max() <= 1e-4 * a.abs().max() for a, b in pairs)


def register() -> None:
    """Make our attention known to Transformers."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(EACH_TEXT, each_text)
    AttentionMaskInterface.register(EACH_TEXT, mask_within)


def each_text(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor | None = None,
    **how: Any,
) -> tuple[Tensor, None]:
    """Scaled dot product attention, on a packed row once for each of its texts.

    That costs the sum of the squared lengths, which a mask over the whole row would not.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward as attention

    if cu_seq_lens_q is None:
        return attention(module, query, key, value, attention_mask, **how)
    parts: list[Tensor] = []
    for a, b in pairwise(cu_seq_lens_q.tolist()):
        mask = None if attention_mask is None else attention_mask[:, :, a:b, a:b]
        q, k, v = (each[:, :, a:b] for each in (query, key, value))
        parts.append(attention(module, q, k, v, mask, **how)[0])
    return torch.cat(parts, dim=1), None


def mask_within(
    *, attention_mask: Tensor | None = None, local_size: int | None = None, **how: Any
) -> Tensor | None:
    """The mask of a padded batch; of a packed row only where attention has a window."""
    from transformers.masking_utils import sdpa_mask

    if attention_mask is None and local_size is None:
        return None
    return sdpa_mask(attention_mask=attention_mask, local_size=local_size, **how)


@torch.no_grad()
def read_alone(model: nn.Module) -> list[Tensor]:
    """Logits of two texts, each read by itself."""
    short, long = two_texts(model)
    return [model(input_ids=ids[None], use_cache=False).logits for ids in (short, long)]


@torch.no_grad()
def read_packed(model: nn.Module) -> list[Tensor]:
    """Logits of the same two from one row."""
    short, long = two_texts(model)
    n = len(short)
    ids = torch.stack([pad(short, (0, len(long) - n)), long])
    mask = torch.ones_like(ids)
    mask[0, n:] = 0
    row = model(**packed(Batch(ids, mask, ids))).logits
    return [row[:, :n], row[:, n:]]


def two_texts(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Token ids of different lengths, as many as the model has."""
    untyped: Any = model
    vocabulary = untyped.get_input_embeddings().num_embeddings
    ids = torch.arange(12, device=next(model.parameters()).device) % vocabulary
    return ids[:4], ids[4:]
