"""UNDO: distil an unlearned model into a noised copy of itself (arXiv 2506.06278)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ilu.methods.retain.likelihood import KL
from ilu.methods.stage import Stage
from ilu.training.objective import Objective, Term
from ilu.training.optim.protocol import Named
from ilu.training.optim.settings import Optim, check_pattern

DISTIL = "distil"
"""The term of the distillation, and the data that it reads."""
WINDOW = 20
"""Steps over which the divergence is averaged to decide whether the copy is close enough."""


def noised(
    w: Float[Tensor, "..."], n: Float[Tensor, "..."], *, a: float, b: float
) -> Float[Tensor, "..."]:
    """(1 - a) w + a b n (arXiv 2506.06278); a = 0 is w, and a = b = 1 is n."""
    return (1 - a) * w + a * b * n


def xavier_uniform(
    shape: Sequence[int], generator: torch.Generator | None = None
) -> Float[Tensor, "..."]:
    """The noise N: uniform within sqrt(6 / (fan_in + fan_out)), and 0 for vectors.

    Of more than two dimensions, the first is fan_out and the second fan_in, both times the others.
    """
    n = torch.zeros(*shape)
    return nn.init.xavier_uniform_(n, generator=generator) if len(shape) > 1 else n


@dataclass(frozen=True, kw_only=True)
class Undo:
    """Distil the unlearned model into a noised copy of itself (UNDO, arXiv 2506.06278).

    The copy starts at (1 - a) W + a b N, with N Xavier-uniform for matrices and 0 for vectors, and
    is trained to minimise KL(unlearned model || copy) on general text, never on what is to be
    forgotten. All weights are trained, also where a mask or adapters restrict the unlearning.
    a = b = 1 starts again from noise; the weights of norms are then 0 at first. The paper's
    example is a = 0.3, b = 0.1. It states closeness as the end; here the number of steps is
    the end, unless ``close_enough`` is given. Learning rate and steps are ours: untested on models
    larger than the lab's.

    Args:
        noise_share: a, the share of every weight that is replaced by noise.
        noise_scale: b, the scale of the noise; 1 is that of a new model.
        noised_weights: regular expression: noise only the weights whose name contains a match; if
            empty, all. The distillation trains all weights in any case.
        distil_steps: steps of the distillation.
        distil_lr: peak learning rate of the distillation.
        distil_schedule: its learning rate over the steps.
        close_enough: end the distillation early once the divergence, in nats per token and averaged
            over the last 20 steps, is at most this; None makes all steps.
    """

    noise_share: float = 0.3
    noise_scale: float = 0.1
    noised_weights: str = ""
    distil_steps: int = 1000
    distil_lr: float = 1e-4
    distil_schedule: Literal["constant", "linear", "cosine"] = "cosine"
    close_enough: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.noise_share <= 1:
            raise ValueError(f"`noise_share` {self.noise_share:g}: it must be from 0 to 1")
        if not self.noise_scale >= 0:
            raise ValueError(f"`noise_scale` {self.noise_scale:g}: it must be at least 0")
        if self.distil_steps < 1:
            raise ValueError(f"`distil_steps` {self.distil_steps}: it must be at least 1")
        if not 0 < self.distil_lr <= 1e30:
            raise ValueError(f"`distil_lr` {self.distil_lr:g}: it must be above 0 and at most 1e30")
        if self.close_enough is not None and not self.close_enough > 0:
            raise ValueError(
                f"`close_enough` {self.close_enough:g}: it must be above 0, or left out"
            )
        check_pattern("noised_weights", self.noised_weights)

    @torch.no_grad()
    def __call__(self, named: Named, seed: int) -> None:
        """Noise the weights in place; the same seed gives the same noise on every device."""
        generator = torch.Generator().manual_seed(seed)
        for name, w in named.items():
            if re.search(self.noised_weights, name):
                n = xavier_uniform(w.shape, generator).to(w)
                w.copy_(noised(w, n, a=self.noise_share, b=self.noise_scale))

    @property
    def objective(self) -> Objective:
        """KL(reference || model), where the reference is the unlearned model."""
        return {DISTIL: Term(KL(), on=DISTIL)}

    def optim(self, first: Optim) -> Optim:
        """The training settings, from those of the unlearning: all weights are trained."""
        return replace(
            first,
            steps=self.distil_steps,
            lr=self.distil_lr,
            schedule=self.distil_schedule,
            warmup=0,
            parameters="",
            perturbed=None,
            average_from=None,
        )

    def is_close(self, divergences: Sequence[float]) -> bool:
        """Whether the mean divergence of the last steps is small enough to end."""
        last = divergences[-WINDOW:]
        if self.close_enough is None or len(last) < WINDOW:
            return False
        return sum(last) / WINDOW <= self.close_enough


STAGES = {
    "undo": Stage(
        Undo,
        lab={
            "noise_share": 0.6, "distil_steps": 530, "distil_lr": 2e-3, "distil_batch_size": 32,
        },
    ),
}  # fmt: skip
