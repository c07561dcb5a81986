"""Convergence of a fine-tuning: its accuracy on held-out examples no longer changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch

from ilu.data.lazy import picked
from ilu.data.stream import collate, shuffled
from ilu.models.forward import ModelForward
from ilu.models.token_math import answered
from ilu.types import LM, Example


@dataclass(frozen=True)
class Convergence:
    """Stop when accuracy changed by less than ``change`` at each of the last ``evaluations``.

    Accuracy is measured on ``held_out`` examples of the training data, never on a test set.
    """

    held_out: int = 100
    change: float = 0.01
    evaluations: int = 3

    def __post_init__(self) -> None:
        if self.held_out < 1 or self.evaluations < 1 or not 0 < self.change <= 1:
            raise ValueError(
                f"convergence on {self.held_out} examples, over {self.evaluations} evaluations, by "
                f"{self.change}: the first two must be at least 1, the last above 0 and at most 1"
            )


class Parts(NamedTuple):
    """Examples to train on, and held-out examples to measure convergence on."""

    trained: Sequence[Example]
    held_out: Sequence[Example]


def converged(accuracies: Sequence[float], rule: Convergence) -> bool:
    """Whether the last changes are all below the threshold (three below 1 % in arXiv 2506.01339).

    ``accuracies`` begins with the accuracy before training. The paper measures once per epoch; here
    the attack sets the interval. An accuracy that has not yet begun to rise also counts as
    converged.
    """
    changes = [abs(b - a) for a, b in pairwise(accuracies)][-rule.evaluations :]
    # In floating point 0.9 - 0.89 is a little more than 0.01, and should count as 0.01.
    return len(changes) == rule.evaluations and max(changes) < rule.change - 1e-9


def hold_out(examples: Sequence[Example], count: int, seed: int) -> Parts:
    """Hold out ``count`` different examples and all their duplicates."""
    keys = [hash((tuple(e.ids), e.prompt)) for e in examples]
    first: dict[int, int] = {}
    for i, key in enumerate(keys):
        first.setdefault(key, i)
    if count >= len(first):
        raise ValueError(
            f"{len(first)} different examples cannot give {count} to judge convergence by and "
            "some to train on: hold out fewer, or give more data"
        )
    different = list(first)
    chosen = {different[i] for i in shuffled(len(different), seed, 0)[:count].tolist()}
    trained = picked(examples, [i for i, key in enumerate(keys) if key not in chosen])
    return Parts(trained, [examples[i] for key, i in first.items() if key in chosen])


@torch.no_grad()
def answer_accuracy(lm: LM, examples: Sequence[Example], batch_size: int) -> float:
    """Share of answer tokens that are the likeliest ones given the true prefix."""
    device = next(lm.model.parameters()).device
    forward, right, total = ModelForward(lm.model), 0, 0
    for start in range(0, len(examples), batch_size):
        out = forward(collate(examples[start : start + batch_size]).to(device))
        counts = answered(out.targets)
        right += int(((out.logits.argmax(-1) == out.targets) & counts).sum())
        total += int(counts.sum())
    return right / total
