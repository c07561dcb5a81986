"""Representation misdirection for unlearning."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ilu.methods.method import Method, Setup, with_settings
from ilu.methods.published import BIO, BOOKS, LLAMA3, NEWS, ON_LLAMA3
from ilu.methods.retain.states import States
from ilu.models.mlp import mlp_outputs_pattern
from ilu.models.state_math import mean_state_norm, state_distance, without_first
from ilu.models.token_math import at_least_float32, masked_mean
from ilu.system.checks import two_digits
from ilu.training.objective import Term
from ilu.types import Batch, Forward, Loss, Needs

Entries = Literal["positive", "gaussian"]


def steering_vector(width: int, *, seed: int, entries: Entries = "positive") -> Float[Tensor, " D"]:
    """A fixed unit vector.

    ``positive`` entries are uniform in [0, 1), as in the authors' code: two such directions have a
    cosine near 3/4. ``gaussian`` entries give a uniformly random direction.
    """
    generator = torch.Generator().manual_seed(seed)
    draw = {"positive": torch.rand, "gaussian": torch.randn}[entries]
    direction = draw(width, generator=generator)
    return direction / direction.norm()


@dataclass(frozen=True)
class RMU:
    """Push the output of block ``layer`` towards one fixed vector (arXiv 2403.03218).

    The squared distance per coordinate, over tokens without padding; the authors' code includes
    padding. ``coefficient`` is absolute: compare it with the norm of the hidden states, which
    differs between models; None is chosen by ``calibrated``. Every ``topic`` has its own direction.
    The first ``skip`` tokens of each text are not steered (ours; 0 as published).
    """

    layer: int = 7
    coefficient: float | None = 6.5
    seed: int = 0
    entries: Entries = "positive"
    topic: int = 0
    skip: int = 0

    @property
    def needs(self) -> Needs:
        return Needs(texts=0, blocks=(self.layer,))

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        if self.coefficient is None:
            raise ValueError("`coefficient` of RMU is not chosen yet: give a number")
        hidden = forward.hidden(batch, self.layer)
        u = steering_vector(hidden.shape[-1], seed=self.seed + self.topic, entries=self.entries)
        target = self.coefficient * u.to(hidden.device)
        return state_distance(hidden, target, without_first(batch.attention_mask, self.skip))

    def calibrated(self, forward: Forward, batch: Batch) -> tuple[Loss, str]:
        """Choose the coefficient from the norm of the states (ours)."""
        if self.coefficient is not None:
            return self, ""
        size = self.state_norm(forward, batch)
        chosen = two_digits(TIMES_THE_NORM * size)
        return replace(self, coefficient=chosen), (
            f"coefficient {chosen:g}: {TIMES_THE_NORM:g} x the mean state norm of block "
            f"{self.layer}, {size:.3g} without the first token"
        )

    def caution(self, forward: Forward, batch: Batch) -> str:
        """A target shorter than the states may not change what later blocks compute."""
        size = self.state_norm(forward, batch)
        if self.coefficient is None or self.coefficient >= size:
            return ""
        return (
            f"`coefficient` {self.coefficient:g} is below the mean state norm of block "
            f"{self.layer}, {size:.3g}: RMU may change nothing; about "
            f"{two_digits(TIMES_THE_NORM * size):g} would do"
        )

    def state_norm(self, forward: Forward, batch: Batch) -> float:
        """Mean norm of the states that are steered, before training."""
        with torch.no_grad():
            hidden = forward.hidden(batch, self.layer)
        return mean_state_norm(hidden, batch.attention_mask).item()


@dataclass(frozen=True)
class AdaptiveRMU:
    """RMU with a coefficient of ``scale`` times the norm of the original states (2408.06223).

    arXiv 2408.06223 measures that norm once per topic. Here it is the mean over the tokens of each
    text, so it needs no stored state.
    """

    layer: int = 7
    scale: float = 5.0
    seed: int = 0
    entries: Entries = "positive"
    topic: int = 0

    @property
    def needs(self) -> Needs:
        return Needs(reference=True, texts=0, blocks=(self.layer,))

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        hidden, original = (f.hidden(batch, self.layer) for f in (forward, reference))
        u = steering_vector(hidden.shape[-1], seed=self.seed + self.topic, entries=self.entries)
        size = masked_mean(at_least_float32(original).norm(dim=-1), batch.attention_mask.bool())
        target = self.scale * size[:, None, None] * u.to(hidden.device)
        return state_distance(hidden, target, batch.attention_mask)


TIMES_THE_NORM = 3.0
"""Norm of the steering vector over that of the states, chosen on SmolLM2: see the log."""
PUBLISHED_DEPTH = 7 / 32
"""Block 7 of the 32 of Zephyr-7B."""


def layer_by_depth(blocks: int) -> int:
    """The block to steer in a model of ``blocks`` blocks, at the published depth."""
    return round(PUBLISHED_DEPTH * blocks)


STEERING = """\
    layer: block whose output is steered; 0 is the first.
    alpha: weight of the retain term on the same hidden states.
    direction: entries of the steering vector: positive, as published, or gaussian.
    direction_seed: seed of the steering vector.
"""


@with_settings(STEERING)
def rmu_recipe(
    layer: int = 7,
    coefficient: float | None = 6.5,
    alpha: float = 1200.0,
    direction: Entries = "positive",
    direction_seed: int = 0,
    skip_first: int = 0,
) -> Setup:
    """Steer the output of one block, training the last three MLPs up to it (RMU, arXiv 2403.03218).

    Args:
        coefficient: norm of the steering vector; None chooses 3 times the mean norm of the states.
        skip_first: tokens at the start of each text that are not steered; in many models the first
            has a norm several times that of the others.
    """
    loss = RMU(layer, coefficient, direction_seed, direction, skip=skip_first)
    return steering(loss, layer, alpha)


@with_settings(STEERING)
def adaptive_rmu_recipe(
    layer: int = 7,
    scale: float = 5.0,
    alpha: float = 1200.0,
    direction: Entries = "positive",
    direction_seed: int = 0,
) -> Setup:
    """RMU with a steering vector in units of the hidden states' norm (arXiv 2408.06223).

    Args:
        scale: norm of the steering vector relative to that of the original hidden states.
    """
    return steering(AdaptiveRMU(layer, scale, direction_seed, direction), layer, alpha)


def steering(loss: RMU | AdaptiveRMU, layer: int, alpha: float) -> Setup:
    """The setup of a loss on the output of a block, which trains the last three MLPs up to it."""
    retain = Term(States(layer), on="retain", weight=alpha)
    return Setup(
        {"forget": Term(loss, on="forget"), "retain": retain},
        parameters=steered_weights(layer),
        for_topic=steered,
    )


def steered(term: Term, topic: int) -> Term:
    """The term of a topic, with its own steering vector."""
    assert isinstance(term.loss, RMU | AdaptiveRMU)
    return replace(term, loss=replace(term.loss, topic=topic))


def steered_weights(layer: int) -> str:
    """Pattern of the weights that RMU trains: last matrices of the three MLPs up to ``layer``."""
    return mlp_outputs_pattern(range(max(0, layer - 2), layer + 1))


UNCLIPPED = {"clip": 1e9}
"""RMU's released code does not clip."""
NOTEBOOK = "lr, alpha, coefficient, layer, 150 batches, 512 tokens, no clipping: WMDP notebook"
METHODS = {
    "rmu": Method(
        rmu_recipe,
        5e-5,
        150,
        "lr, alpha, coefficient, layer, 150 batches: WMDP notebook",
        measured={
            "lr": 5e-4,
            "steps": 60,
            "passes": 1.5,
            "batch_size": 8,
            "coefficient": None,
            "alpha": 10.0,
            "skip_first": 1,
        },
        by_depth={"layer": layer_by_depth},
        environment={"strength": 0.01},  # with 0.1 nothing is forgotten in 63 steps
        lab={"lr": 1e-3, "steps": 300, "layer": 3, "coefficient": 150.0, "alpha": 5.0},
        lab_ilu={"strength": 300.0, "scale_free": False, "steps": 600},
    ),
    "adaptive-rmu": Method(
        adaptive_rmu_recipe,
        5e-5,
        500,
        "lr, alpha, scale, 500 batches: README",
        lab={"lr": 1e-3, "layer": 3, "scale": 3.0, "alpha": 2.0, "steps": 300},
    ),
    "wmdp-rmu": Method(rmu_recipe, 5e-5, 150, NOTEBOOK, {**BIO, **UNCLIPPED, "seed": 42}),
    "wmdp-rmu-llama3": Method(
        adaptive_rmu_recipe,
        5e-5,
        500,
        f"README of adaptive RMU, whose length of the steering vector fits any model; {ON_LLAMA3}",
        {**BIO, **UNCLIPPED, **LLAMA3},
    ),
    "muse-news-rmu": Method(
        rmu_recipe,
        5e-5,
        150,
        "all settings of WMDP: not published for MUSE, unverified",
        {**NEWS, **UNCLIPPED, "batch_size": 4, "truncate": 512},
    ),
    "muse-books-rmu": Method(
        rmu_recipe,
        5e-5,
        150,
        "all settings of WMDP: not published for MUSE, unverified",
        {**BOOKS, **UNCLIPPED, "batch_size": 4, "truncate": 512},
    ),
}
