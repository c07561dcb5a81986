"""Small deterministic inputs shared by the tests."""

import torch

from ilu.types import IGNORE, Batch


def batch(seed: int = 0, *, examples: int = 3, tokens: int = 8, prompt: int = 2, pad: int = 0):
    ids = torch.randint(1, 32, (examples, tokens), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    labels = ids.clone()
    labels[:, :prompt] = IGNORE
    if pad:
        ids[:, -pad:], mask[:, -pad:], labels[:, -pad:] = 0, 0, IGNORE
    return Batch(ids, mask, labels)


def pad_right(b: Batch, width: int) -> Batch:
    parts = ((b.input_ids, 0), (b.attention_mask, 0), (b.labels, IGNORE))
    return Batch(*(torch.nn.functional.pad(t, (0, width), value=fill) for t, fill in parts))
