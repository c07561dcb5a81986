"""Scores on disk, in shards, for models whose scores do not fit into memory beside them."""

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
"""What the scores were made from."""
SHARD = 1 << 30
"""Bytes after which a shard is closed."""


@dataclass(frozen=True)
class StoredScores:
    """A folder of scores; reading holds one tensor at a time."""

    path: Path

    @property
    def record(self) -> dict[str, Any]:
        """What the scores were made from."""
        try:
            return json.loads((self.path / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise ValueError(
                f"{self.path} holds no scores that ilu mask has written: choose another folder"
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
    """Write scores as they come, in float32; the folder is there once all of them are."""
    with new_folder(path) as folder:
        (folder / RECORD).write_text(json.dumps(dict(record or {}), indent=2), encoding="utf-8")
        held: dict[str, Tensor] = {}
        written = 0
        for place, (name, x) in enumerate(scores):
            # safetensors sorts its keys; the number keeps our order.
            held[f"{place:08d} {name}"] = x.detach().float().cpu().contiguous()
            if sum(x.nbytes for x in held.values()) >= shard:
                save_file(held, folder / f"scores-{written:05d}.safetensors")
                held, written = {}, written + 1
        if held:
            save_file(held, folder / f"scores-{written:05d}.safetensors")
    return StoredScores(path)
