"""Checkpoints of a training run: safetensors and JSON, written atomically."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ilu.system.atomic import new_folder, write_json
from ilu.system.distributed import ALONE, Ranks
from ilu.system.scores import Reached, Steps
from ilu.types import LM, Weights


@runtime_checkable
class Stateful(Protocol):
    """Additional state of a checkpoint besides the weights, such as an optimiser."""

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, by name."""
        ...

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Restore a state."""
        ...


@dataclass
class State:
    """The progress of a run: the next step, drawn batches per stream, and state of term weights."""

    step: int = 0
    drawn: dict[str, int] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoints:
    """Checkpoints of a run in the folder ``path``, every ``every`` steps; only the last is kept.

    With sharded weights every process writes its shards to its own folder.
    """

    path: Path
    every: int | None = None
    ranks: Ranks = ALONE

    @property
    def place(self) -> Path:
        """The folder of this process."""
        part = f"part-{self.ranks.rank + 1}-of-{self.ranks.size}"
        return self.path / part if self.ranks.sharded else self.path

    def due(self, step: int) -> bool:
        """Whether a checkpoint is due after ``step`` steps."""
        return self.every is not None and step % self.every == 0

    def latest(self) -> Path | None:
        """Folder of the last checkpoint that is complete in all processes."""
        self.check_parts()
        folders = sorted(p for p in self.place.glob("*") if p.name.isdigit())
        step = self.ranks.lowest(int(folders[-1].name) if folders else -1)
        return self.place / f"{step:09d}" if step >= 0 else None

    def save(self, parts: Mapping[str, Stateful], named: Weights, state: State) -> None:
        """Write weights, parts, counters and the random state, then delete the one before."""
        before = self.latest()
        if self.ranks.leads or self.ranks.sharded:
            self.write(parts, named, state)
        self.ranks.any(True)  # waits for the other processes, which may need the previous one
        if before is not None and (self.ranks.leads or self.ranks.sharded):
            shutil.rmtree(before)

    def write(self, parts: Mapping[str, Stateful], named: Weights, state: State) -> None:
        """Write one checkpoint of this process atomically."""
        with new_folder(self.place / f"{state.step:09d}") as folder:
            save_tensors(named, folder / "weights.safetensors")
            for name, part in parts.items():
                save_tensors(part.state(), folder / f"{name}.safetensors")
            save_tensors({"rng": torch.get_rng_state()}, folder / "random.safetensors")
            write_json(folder / "state.json", asdict(state))

    def load(self, parts: Mapping[str, Stateful], named: Weights) -> State:
        """Restore the last checkpoint; without one, return the state of a new run."""
        folder = self.latest()
        if folder is None:
            return State()
        weights = load_file(folder / "weights.safetensors")
        with torch.no_grad():
            for name, p in named.items():
                p.copy_(weights[name])
        for name, part in parts.items():
            part.restore(load_file(folder / f"{name}.safetensors"))
        torch.set_rng_state(load_file(folder / "random.safetensors")["rng"])
        return State(**json.loads((folder / "state.json").read_text()))

    def check_parts(self) -> None:
        """ValueError if the number of processes differs from that of the saved checkpoint."""
        saved = sorted({p.name.rpartition("-of-")[2] for p in self.path.glob("part-*-of-*")})
        now = str(self.ranks.size) if self.ranks.sharded else "none"
        if saved and now not in saved:
            raise ValueError(
                f"{self.path} was saved by {saved[0]} processes with `shard`: resume with as many"
            )

    def remove(self) -> None:
        """Delete the checkpoints of a finished run."""
        self.ranks.any(True)  # no process may still be reading
        if self.ranks.leads:
            shutil.rmtree(self.path, ignore_errors=True)


@runtime_checkable
class Resumable(Protocol):
    """An attack that can continue from its last checkpoint; others start over."""

    def proceed(
        self,
        lm: LM,
        *,
        reached: Reached,
        progress: Steps,
        checkpoints: Checkpoints,
        stop: Callable[[], bool],
    ) -> None:
        """Attack ``lm.model``, which has the weights before the attack, from the last checkpoint.

        Save one whenever it is due, and before raising ``Stopped`` once ``stop()`` is true.
        """
        ...


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors by name, possibly none."""
    save_file({n: t.detach().contiguous() for n, t in tensors.items()}, path)
