"""Attacks that change the weights in one step: no data, no training."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import nn

from ilu.models.matrices import Matrix, share_of_blocks, weight_matrices
from ilu.system.scores import Reached, Steps
from ilu.types import LM, Example, Metric

MOST = 0.9
"""Share of the weights in the blocks that an attack on all matrices should change."""


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


def matrices_to_change(model: nn.Module) -> list[Matrix]:
    """The weight matrices of a model; ValueError without any.

    Warns if they are not almost all weights of the blocks.
    """
    matrices = weight_matrices(model)
    if not matrices:
        raise ValueError("this model has no weight matrix that could be changed")
    share = share_of_blocks(model, matrices.keys())
    if share < MOST:
        warnings.warn(
            f"only {share:.0%} of the weights in the blocks are matrices, and the others stay as "
            "they are",
            stacklevel=2,
        )
    return [*matrices.values()]
