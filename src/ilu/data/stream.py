"""Batches of examples as an endless, reproducible stream."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from ilu.system.distributed import ALONE, Ranks
from ilu.types import IGNORE, Batch, Example, Source


def collate(examples: Sequence[Example]) -> Batch:
    """Pad on the right; prompt and padding have no loss.

    Padding is token 0 with attention mask 0, so the tokenizer needs no pad token.
    """
    width = max(len(e.ids) for e in examples)
    others = zip(*(e.others for e in examples), strict=True)
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORE)
    for row, e in enumerate(examples):
        n = len(e.ids)
        ids[row, :n], mask[row, :n] = torch.tensor(e.ids), 1
        labels[row, e.prompt : n] = ids[row, e.prompt : n]
    return Batch(ids, mask, labels, tuple(collate(column) for column in others))


Role = Literal["forget", "retain", "environment", "task"]
"""The role of data. Attacks and pretraining use ``task``."""


@dataclass(frozen=True)
class Feed:
    """A source, the size of its batches, and the role of its data."""

    source: Source
    batch_size: int
    role: Role = "task"


def open_stream(
    feed: Feed,
    tokenizer: Any,
    *,
    limit: int | None,
    seed: int,
    name: str,
    size: str = "batch_size",
) -> "Stream":
    """Tokenize the data; ValueError for rows of over ``limit`` tokens or too large a batch.

    ``name`` is what the error calls the data, ``size`` the setting of the batch size.
    """
    examples = feed.source(tokenizer)
    check_lengths(examples, limit, name)
    if feed.batch_size > len(examples):
        what = "example" if len(examples) == 1 else "examples"
        raise ValueError(
            f"{name}: {len(examples)} {what} cannot fill a batch of {feed.batch_size}: set "
            f"`{size}` to at most {len(examples)}, or give more data"
        )
    return Stream(examples, feed.batch_size, seed)


def check_lengths(examples: Sequence[Example], limit: int | None, name: str) -> None:
    """ValueError for examples that exceed the model's context; nothing is truncated silently."""
    if limit is None:
        return
    count = longest = 0
    for e in examples:
        length = max(len(one.ids) for one in (e, *e.others))
        count, longest = count + (length > limit), max(longest, length)
    if count:
        raise ValueError(
            f"{name}: {count} of {len(examples)} rows are longer than the model's {limit} "
            f"tokens (the longest has {longest}). Shorten them, or cut with `truncate` {limit}."
        )


@dataclass(frozen=True)
class Stream:
    """Batch ``k`` as a pure function of ``k``, so that a resumed run gets identical batches.

    Every epoch has its own order. An incomplete last batch is dropped.
    """

    examples: Sequence[Example]
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= len(self.examples):
            raise ValueError(
                f"{len(self.examples)} examples cannot fill a batch of {self.batch_size}"
            )

    def __call__(self, k: int) -> Batch:
        epoch, within = divmod(k, len(self.examples) // self.batch_size)
        order = shuffled(len(self.examples), self.seed, epoch)
        start = within * self.batch_size
        rows = order[start : start + self.batch_size].tolist()
        return collate([self.examples[i] for i in rows])


@lru_cache(maxsize=16)
def shuffled(n: int, seed: int, epoch: int) -> Int[Tensor, " n"]:
    """Order of ``n`` examples in one epoch."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(n, generator=generator)


def fingerprint(examples: Sequence[Example]) -> dict[str, Any]:
    """Size and hash of tokenized data, to check whether two runs used the same data."""
    digest, tokens = hashlib.sha256(), 0
    for e in examples:
        others = f"{written(e.others)}" if e.others else ""
        digest.update(f"{e.prompt}:{e.ids}{others};".encode())
        tokens += len(e.ids)
    return {"examples": len(examples), "tokens": tokens, "sha256": digest.hexdigest()}


def written(examples: Sequence[Example]) -> str:
    """Counterparts as text: the form that every recorded hash of data has."""
    each = (
        f"Example(ids={e.ids}, prompt={e.prompt}, others={written(e.others)})" for e in examples
    )
    return f"({', '.join(each)}{',' if len(examples) == 1 else ''})"


def counterpart(batch: Batch, index: int, what: str) -> Batch:
    """Counterpart ``index`` of every example; ``what`` describes it in the error."""
    if index >= len(batch.others):
        raise ValueError(f"this loss compares each example with a {what}, and the data has none")
    return batch.others[index]


def split(batch: Batch, size: int | None) -> list[Batch]:
    """Split a batch into micro-batches of at most ``size`` examples; None does not split."""
    if size is None or size >= len(batch):
        return [batch]
    parts = (batch.input_ids, batch.attention_mask, batch.labels)
    columns = [split(other, size) for other in batch.others]
    others = zip(*columns, strict=True) if columns else repeat(())
    pieces = zip(zip(*(p.split(size) for p in parts), strict=True), others, strict=False)
    return [Batch(*piece, others=tuple(other)) for piece, other in pieces]


def rows_of(batch: Batch, ranks: Ranks) -> Batch:
    """The rows of a batch for this process. All processes have equally many."""
    return split(batch, share_of(len(batch), ranks))[ranks.rank]


def share_of(size: int, ranks: Ranks) -> int:
    """The number of rows of a batch per process."""
    if size % ranks.size:
        raise ValueError(
            f"a batch of {size} cannot be shared by {ranks.size} processes: choose "
            f"`batch_size` and `environment_batch_size` as multiples of {ranks.size}"
        )
    return size // ranks.size


def drawer(
    streams: Mapping[str, Stream], drawn: dict[str, int], device: torch.device, ranks: Ranks = ALONE
) -> Callable[[str], Batch]:
    """A function that returns this process's rows of the next batch of a stream.

    ``drawn`` counts the batches, so that a checkpoint can continue.
    """

    def draw(on: str) -> Batch:
        if on not in streams:
            raise ValueError(f"no stream {on!r}; the data has: {', '.join(sorted(streams))}")
        drawn[on] = drawn.get(on, 0) + 1
        return rows_of(streams[on](drawn[on] - 1), ranks).to(device)

    return draw
