"""When a fine-tuning is over: its accuracy on examples that it does not train on stands still."""

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
    """Stop once accuracy changed by less than ``change`` at each of so many ``evaluations``.

    ``held_out`` examples are taken from what would be trained on, so no test set has a say.
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
    """Examples to train on, and examples to judge that training by."""

    trained: Sequence[Example]
    held_out: Sequence[Example]


def converged(accuracies: Sequence[float], rule: Convergence) -> bool:
    """Whether the last changes are all below 1 % (three of them in arXiv 2506.01339).

    ``accuracies`` begins with that before training. The paper looks once an epoch; here it is as
    often as the attack says. An accuracy that has not begun to rise also stands still.
    """
    changes = [abs(b - a) for a, b in pairwise(accuracies)][-rule.evaluations :]
    # Accuracies are quotients: 0.9 - 0.89 is a little more than 0.01, and should count as it.
    return len(changes) == rule.evaluations and max(changes) < rule.change - 1e-9


def hold_out(examples: Sequence[Example], count: int, seed: int) -> Parts:
    """Take ``count`` different examples out, and whatever equals them."""
    keys = [hash((tuple(e.ids), e.prompt)) for e in examples]
    first: dict[int, int] = {}
    for i, key in enumerate(keys):
        first.setdefault(key, i)
    if count >= len(first):
        raise ValueError(
            f"{len(first)} different examples cannot give {count} to judge convergence by and "
            "some to train on: hold out fewer, or bring more data"
        )
    different = list(first)
    chosen = {different[i] for i in shuffled(len(different), seed, 0)[:count].tolist()}
    trained = picked(examples, [i for i, key in enumerate(keys) if key not in chosen])
    return Parts(trained, [examples[i] for key, i in first.items() if key in chosen])


@torch.no_grad()
def answer_accuracy(lm: LM, examples: Sequence[Example], batch_size: int) -> float:
    """Share of answer tokens that are the likeliest after those before them."""
    device = next(lm.model.parameters()).device
    forward, right, asked = ModelForward(lm.model), 0, 0
    for start in range(0, len(examples), batch_size):
        out = forward(collate(examples[start : start + batch_size]).to(device))
        counts = answered(out.targets)
        right += int(((out.logits.argmax(-1) == out.targets) & counts).sum())
        asked += int(counts.sum())
    return right / asked
