"""Task-vector negation: fine-tune on the forget set, then subtract the change."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ilu.methods.method import Method, Setup
from ilu.methods.retain.likelihood import NLL
from ilu.training.objective import Term
from ilu.types import Params


@dataclass(frozen=True)
class Negation:
    """theta - alpha (theta_finetuned - theta) (arXiv 2212.04089), in float32.

    A weight that did not change keeps its bits.
    """

    alpha: float = 1.0

    @torch.no_grad()
    def __call__(self, params: Params, original: Sequence[Tensor]) -> None:
        for p, start in zip(params, original, strict=True):
            p.copy_(start - self.alpha * (p - start))


def task_vector(alpha: float = 1.0) -> Setup:
    """Fine-tune on the forget set, then subtract the change (task arithmetic, arXiv 2212.04089).

    The penalty of -ilu acts during the fine-tuning, before the negation.

    Args:
        alpha: factor of the subtracted change.
    """
    return Setup({"forget": Term(NLL(), on="forget")}, edit=Negation(alpha))


METHODS = {
    "task-vector": Method(
        task_vector,
        1e-5,
        125,
        "lr: MUSE, which searches alpha in 1 to 16",
        lab={"lr": 1e-3, "alpha": 2.0, "steps": 50},
    ),
}
