"""Interpolation of the weights with those of the original model."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ilu.attacks.kind import AttackInputs, AttackKind, number
from ilu.attacks.weight_edit import WeightEdit
from ilu.models.load import load_model, pinned
from ilu.models.named import check_name, full_name
from ilu.types import LM


@dataclass(frozen=True)
class Interpolate:
    """Interpolate with the ``original``: (1 - s) theta + s theta_o, s the ``share``.

    For an attacker with the original model, or another that has the knowledge (arXiv 2203.05482).
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
        loaded = load_original(self.original, self.revision, model).model
        other = dict(loaded.named_parameters())
        for name, p in model.named_parameters():
            p.lerp_(other[name].to(p), self.share)


def load_original(name: str, revision: str | None, model: nn.Module) -> LM:
    """The model before unlearning, on the device of ``model``. ValueError for other weights."""
    loaded = load_model(name, revision=pinned(name, revision))
    ours, theirs = (
        {n: p.shape for n, p in each.named_parameters()} for each in (model, loaded.model)
    )
    if ours != theirs:
        raise ValueError(f"{name} is not of the same architecture as this model")
    loaded.model.to(next(model.parameters()).device)
    return loaded


def interpolate(argument: str, inputs: AttackInputs) -> WeightEdit:
    """Interpolate with the model that is given as the original, which gets this share."""
    if inputs.original is None:
        raise ValueError("interpolate needs the model before unlearning: set `original`")
    return WeightEdit(Interpolate(full_name(inputs.original), number(argument)))


ATTACKS: Mapping[str, AttackKind] = {
    "interpolate": AttackKind(interpolate, example="0.5", needs="original", zero="0")
}
