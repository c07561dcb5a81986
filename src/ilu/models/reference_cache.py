"""Log-probabilities of texts under the reference, each computed once."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ilu.models.token_math import answered
from ilu.types import Batch, Tokens

MOST = 1 << 15
"""Number of cached texts, so that memory does not grow with the data; others are computed again."""


@dataclass(frozen=True)
class ReferenceCache:
    """One vector of log-probabilities for each text, by a hash of the text and its labels.

    Part of a checkpoint: a text may be read in another batch, and its last bits depend on that.
    The vectors are in host memory, wherever the model is.
    """

    known: dict[bytes, Tensor] = field(default_factory=dict[bytes, Tensor])

    def tokens(
        self, batch: Batch, read: Callable[[Batch], Tokens], *, autocast: bool = False
    ) -> Tokens:
        """``read`` of a batch, computed only for texts that are not cached.

        Results under autocast are cached separately. With several processes nothing is cached: all
        of them must read, or none.
        """
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return read(batch)
        keys = keys_of(batch, b"autocast" if autocast else b"")
        lengths = batch.attention_mask.sum(-1).tolist()
        new = [i for i, key in enumerate(keys) if key not in self.known]
        if new:
            part = batch if len(new) == len(keys) else rows_of(batch, new)
            for i, logp in zip(new, read(part).logp, strict=True):
                self.known[keys[i]] = logp[: lengths[i] - 1].cpu().clone()
        rows = [self.known[key] for key in keys]
        while len(self.known) > MOST:
            self.known.popitem()  # the latest
        logp = rows[0].new_zeros(batch.labels[:, 1:].shape)
        for place, row in zip(logp, rows, strict=True):
            place[: len(row)] = row
        return Tokens(logp.to(batch.labels.device), answered(batch.labels[:, 1:]))

    def state(self) -> dict[str, Tensor]:
        """The cache as three tensors."""
        if not self.known:
            return {}
        keys = torch.tensor([list(key) for key in self.known], dtype=torch.uint8)
        lengths = torch.tensor([len(row) for row in self.known.values()])
        return {"keys": keys, "lengths": lengths, "logp": torch.cat(list(self.known.values()))}

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Restore the cache from ``state``."""
        if saved:
            rows = saved["logp"].split(saved["lengths"].tolist())
            self.known.update(zip(map(bytes, saved["keys"].tolist()), rows, strict=True))


def keys_of(batch: Batch, how: bytes = b"") -> list[bytes]:
    """A hash of the text and the labels of each row, whatever the padding, and of ``how``."""
    ids, labels = batch.input_ids.cpu().numpy(), batch.labels.cpu().numpy()
    keys: list[bytes] = []
    for row, length in enumerate(batch.attention_mask.sum(-1).tolist()):
        text = how + ids[row, :length].tobytes() + labels[row, :length].tobytes()
        keys.append(hashlib.blake2b(text, digest_size=16).digest())
    return keys


def rows_of(batch: Batch, rows: Sequence[int]) -> Batch:
    """Some rows of a batch, without counterparts."""
    index = torch.tensor(rows, device=batch.input_ids.device)
    return Batch(batch.input_ids[index], batch.attention_mask[index], batch.labels[index])
