"""Checkpoints of a training run: safetensors and JSON, complete or not there."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ilu.files import new_folder, write_json

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass
class State:
    """How far a run is: the next step, and how many batches each stream has given."""

    step: int = 0
    drawn: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoints:
    """Checkpoints of a run in the folder ``path``, every ``every`` steps; the last is kept."""

    path: Path
    every: int | None = None

    def due(self, step: int) -> bool:
        """Whether a checkpoint belongs after ``step`` steps."""
        return self.every is not None and step % self.every == 0

    def latest(self) -> Path | None:
        """Folder of the last complete checkpoint."""
        found = sorted(p for p in self.path.glob("*") if p.name.isdigit())
        return found[-1] if found else None

    def save(
        self, named: Mapping[str, nn.Parameter], adam: torch.optim.Optimizer, state: State
    ) -> None:
        """Write weights, moments, counters and the random state, then drop the one before."""
        before = self.latest()
        with new_folder(self.path / f"{state.step:09d}") as folder:
            weights = {n: p.detach().contiguous() for n, p in named.items()}
            save_file(weights, folder / "weights.safetensors")
            save_file(moments(named, adam), folder / "optimizer.safetensors")
            save_file({"rng": torch.get_rng_state()}, folder / "random.safetensors")
            write_json(folder / "state.json", {"step": state.step, "drawn": state.drawn})
        if before is not None:
            shutil.rmtree(before)

    def load(self, named: Mapping[str, nn.Parameter], adam: torch.optim.Optimizer) -> State:
        """Bring back the last checkpoint, or the state of a run not yet begun."""
        folder = self.latest()
        if folder is None:
            return State()
        weights = load_file(folder / "weights.safetensors")
        with torch.no_grad():
            for name, p in named.items():
                p.copy_(weights[name])
        set_moments(named, adam, load_file(folder / "optimizer.safetensors"))
        torch.set_rng_state(load_file(folder / "random.safetensors")["rng"])
        return State(**json.loads((folder / "state.json").read_text()))

    def remove(self) -> None:
        """Delete the checkpoints of a finished run."""
        shutil.rmtree(self.path, ignore_errors=True)


def moments(named: Mapping[str, nn.Parameter], adam: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Adam's state under the names of the weights."""
    return {
        f"{key}/{name}": adam.state[p][key]
        for name, p in named.items()
        for key in MOMENTS
        if p in adam.state
    }


def set_moments(
    named: Mapping[str, nn.Parameter], adam: torch.optim.Optimizer, saved: Mapping[str, Tensor]
) -> None:
    """Put Adam's state back; a weight that never had a gradient has none."""
    for name, p in named.items():
        if f"step/{name}" in saved:
            values = {key: saved[f"{key}/{name}"] for key in MOMENTS}
            adam.state[p] = {k: v if k == "step" else v.to(p.device) for k, v in values.items()}
