"""Attacks that change the weights in one step: no data, no training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import nn

from ilu.models.lora import linear_layers
from ilu.system.scores import Reached, Steps
from ilu.types import LM, Example, Metric


@runtime_checkable
class Change(Protocol):
    """A change of a model's weights."""

    def check(self, model: nn.Module) -> None:
        """Raise ValueError if the change does not apply to ``model``."""
        ...

    def __call__(self, model: nn.Module) -> None:
        """Change ``model`` in place; the weights stay float32."""
        ...


@dataclass(frozen=True)
class WeightEdit:
    """A change of the weights as an attack, without data and without steps."""

    change: Change
    goals: Mapping[str, Metric] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """No steps."""
        return 0

    def data(self, lm: LM) -> Sequence[Example]:
        """No data. ValueError if the change does not apply to the model."""
        self.change.check(lm.model)
        return ()

    def __call__(self, lm: LM, *, reached: Reached, progress: Steps) -> None:
        self.change(lm.model)
        reached("end")


def linear_weights(model: nn.Module) -> list[tuple[nn.Parameter, bool]]:
    """Weights of the linear layers except the output layer, and whether the rows are inputs."""
    inside = [model.get_submodule(name) for name in linear_layers(model)]
    pairs = [(m.weight, not isinstance(m, nn.Linear)) for m in inside]
    weights = [(w, transposed) for w, transposed in pairs if isinstance(w, nn.Parameter)]
    if not weights:
        raise ValueError("this model has no linear layer that could be changed")
    return weights
