"""Averaging the weights with those of the original model."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ilu.attacks.kind import AttackInputs, AttackKind, number
from ilu.attacks.weight_edit import WeightEdit
from ilu.models.load import load_model, pinned
from ilu.models.named import check_name, full_name


@dataclass(frozen=True)
class Interpolate:
    """Go this ``share`` of the way back to the ``original``: (1 - s) theta + s theta_o.

    Who has the model from before, or another that knows, may average them (arXiv 2203.05482).
    """

    original: str
    share: float = 0.5
    revision: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"a share of {self.share} of the original: it must be from 0 to 1")

    def check(self, model: nn.Module) -> None:
        check_name(self.original)

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> None:
        loaded = load_model(self.original, revision=pinned(self.original, self.revision)).model
        other, ours = dict(loaded.named_parameters()), dict(model.named_parameters())
        if {n: p.shape for n, p in other.items()} != {n: p.shape for n, p in ours.items()}:
            raise ValueError(f"{self.original} is not of the same architecture as this model")
        for name, p in ours.items():
            p.lerp_(other[name].to(p), self.share)


def interpolate(argument: str, inputs: AttackInputs) -> WeightEdit:
    """Go a share of the way back to the model given as the original."""
    if inputs.original is None:
        raise ValueError("say which model was the original: `original` MODEL")
    return WeightEdit(Interpolate(full_name(inputs.original), number(argument)))


ATTACKS: Mapping[str, AttackKind] = {
    "interpolate": AttackKind(interpolate, example="0.5", needs="original", zero="0")
}
