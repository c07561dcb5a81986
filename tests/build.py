"""Small deterministic inputs shared by the tests."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from ilu.types import IGNORE, Batch, Copies, Slope


def batch(seed: int = 0, *, examples: int = 3, tokens: int = 8, prompt: int = 2, pad: int = 0):
    ids = torch.randint(1, 32, (examples, tokens), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    labels = ids.clone()
    labels[:, :prompt] = IGNORE
    if pad:
        ids[:, -pad:], mask[:, -pad:], labels[:, -pad:] = 0, 0, IGNORE
    return Batch(ids, mask, labels)


def with_others(b: Batch) -> Batch:
    """The batch with two counterparts beside every example, as losses that compare want them."""
    others = tuple(
        Batch((b.input_ids + k) % 31 + 1, b.attention_mask, shifted_labels(b, k)) for k in (5, 11)
    )
    return replace(b, others=others)


def shifted_labels(b: Batch, k: int) -> torch.Tensor:
    return ((b.input_ids + k) % 31 + 1).where(b.labels != IGNORE, IGNORE)


def pad_right(b: Batch, width: int) -> Batch:
    parts = ((b.input_ids, 0), (b.attention_mask, 0), (b.labels, IGNORE))
    padded = (torch.nn.functional.pad(t, (0, width), value=fill) for t, fill in parts)
    return Batch(*padded, others=tuple(pad_right(other, width) for other in b.others))


def ignore(b: Batch, rows: slice, columns: slice) -> Batch:
    """The batch with fewer tokens that take a loss, in its counterparts too."""
    labels = b.labels.clone()
    labels[rows, columns] = IGNORE
    return replace(b, labels=labels, others=tuple(ignore(o, rows, columns) for o in b.others))


def shorten(b: Batch, *, row: int, by: int) -> Batch:
    """The batch with one example that is ``by`` tokens shorter, and padded for it."""
    parts = [t.clone() for t in (b.input_ids, b.attention_mask, b.labels)]
    for part, fill in zip(parts, (0, 0, IGNORE), strict=True):
        part[row, -by:] = fill
    return Batch(*parts, others=tuple(shorten(o, row=row, by=by) for o in b.others))


@dataclass(frozen=True)
class OwnRule:
    """A gradient rule made of a function, which takes a gradient of its own."""

    act: Callable[..., Slope]
    power = None
    copies = Copies(1)

    def reads(self) -> tuple[str, ...]:
        return ()

    def __call__(self, params, here, grad_of, step):
        return self.act(params, here, grad_of, step)
