"""Pruning by magnitude."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ilu.attacks.kind import AttackInputs, AttackKind, number
from ilu.attacks.weight_edit import WeightEdit, matrices_to_change


@dataclass(frozen=True)
class Prune:
    """Set the smallest ``fraction`` of each weight matrix to zero (arXiv 1506.02626).

    Each expert has a matrix of its own. Embeddings and the output layer are not pruned. Among equal
    weights the first are set to zero.
    """

    fraction: float

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise ValueError(f"pruning {self.fraction} of the weights: it must be from 0 to 1")

    def check(self, model: nn.Module) -> None:
        matrices_to_change(model)

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> None:
        for matrix in matrices_to_change(model):
            for weight in matrix.each():
                smallest = weight.abs().flatten().argsort(stable=True)
                zeros = smallest[: round(self.fraction * weight.numel())]
                keep = torch.ones(weight.numel(), dtype=torch.bool, device=weight.device)
                keep[zeros] = False
                weight.mul_(keep.view(weight.shape))


def prune(argument: str, inputs: AttackInputs) -> WeightEdit:
    """Set the smallest weights of each weight matrix to zero."""
    return WeightEdit(Prune(number(argument)))


ATTACKS: Mapping[str, AttackKind] = {"prune": AttackKind(prune, example="0.3", zero="0")}
