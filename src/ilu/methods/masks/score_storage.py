"""Scores on disk in shards, for large models whose scores do not fit into memory."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ilu.system.atomic import new_folder

RECORD = "made.json"
"""File that records the inputs of the scores."""
SHARD = 1 << 30
"""Size in bytes at which a shard is written."""


@dataclass(frozen=True)
class StoredScores:
    """A folder of scores; iteration loads one tensor at a time."""

    path: Path

    @property
    def record(self) -> dict[str, Any]:
        """The inputs of the scores, from the folder's record."""
        try:
            return json.loads((self.path / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise ValueError(
                f"{self.path} has no scores that ilu mask has written: choose another folder"
            ) from None

    def __iter__(self) -> Iterator[tuple[str, Float[Tensor, "..."]]]:
        """Name and scores of each tensor, in the order in which they were written."""
        for shard in sorted(self.path.glob("*.safetensors")):
            with safe_open(shard, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118, not a dict
                    yield key.partition(" ")[2], file.get_tensor(key)


def store_scores(
    scores: Iterable[tuple[str, Float[Tensor, "..."]]],
    path: Path,
    record: Mapping[str, Any] | None = None,
    *,
    shard: int = SHARD,
) -> StoredScores:
    """Write scores one by one in float32; the folder appears when all are written."""
    with new_folder(path) as folder:
        (folder / RECORD).write_text(json.dumps(dict(record or {}), indent=2), encoding="utf-8")
        pending: dict[str, Tensor] = {}
        written = 0
        for place, (name, x) in enumerate(scores):
            # safetensors sorts its keys; the number preserves our order.
            pending[f"{place:08d} {name}"] = x.detach().float().cpu().contiguous()
            if sum(x.nbytes for x in pending.values()) >= shard:
                save_file(pending, folder / f"scores-{written:05d}.safetensors")
                pending, written = {}, written + 1
        if pending:
            save_file(pending, folder / f"scores-{written:05d}.safetensors")
    return StoredScores(path)
