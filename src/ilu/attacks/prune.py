"""Pruning by magnitude."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ilu.attacks.kind import AttackInputs, AttackKind, number
from ilu.attacks.weight_edit import WeightEdit, linear_weights


@dataclass(frozen=True)
class Prune:
    """Set the smallest ``fraction`` of the weights of each linear layer to zero (arXiv 1506.02626).

    The output layer is not pruned. Among equal weights the first are set to zero.
    """

    fraction: float

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise ValueError(f"pruning {self.fraction} of the weights: it must be from 0 to 1")

    def check(self, model: nn.Module) -> None:
        linear_weights(model)

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> None:
        for weight, _ in linear_weights(model):
            smallest = weight.abs().flatten().argsort(stable=True)
            zeros = smallest[: round(self.fraction * weight.numel())]
            weight.view(-1)[zeros] = 0


def prune(argument: str, inputs: AttackInputs) -> WeightEdit:
    """Set the smallest weights of each linear layer to zero."""
    return WeightEdit(Prune(number(argument)))


ATTACKS: Mapping[str, AttackKind] = {"prune": AttackKind(prune, example="0.3", zero="0")}
