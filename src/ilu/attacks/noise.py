"""Random noise on every weight."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ilu.attacks.kind import AttackInputs, AttackKind, number
from ilu.attacks.weight_edit import WeightEdit


@dataclass(frozen=True)
class Noise:
    """Add normal noise to every weight: ``scale`` times the root mean square of its tensor."""

    scale: float
    seed: int = 0

    def __post_init__(self) -> None:
        if self.scale < 0:
            raise ValueError(f"noise of scale {self.scale}: it must be at least 0")

    def check(self, model: nn.Module) -> None:
        """The change applies to every model."""

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        for p in model.parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.add_(noise.to(p), alpha=self.scale * p.square().mean().sqrt().item())


def noise(argument: str, inputs: AttackInputs) -> WeightEdit:
    """Add normal noise in units of the root mean square of each tensor."""
    return WeightEdit(Noise(number(argument), inputs.seed))


ATTACKS: Mapping[str, AttackKind] = {"noise": AttackKind(noise, example="0.05", zero="0")}
