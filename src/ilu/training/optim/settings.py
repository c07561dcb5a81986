"""Settings of a training; this file does not import torch."""

import math
import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["adamw", "sgd", "signsgd", "mezo", "sophia", "adamw8bit", "adamw-bf16"]
Keep = Literal["last", "best"] | float
"""Which weights a training ends with: by validation, see ``runs/validation.py``."""


@dataclass(frozen=True, kw_only=True)
class Optim:
    """Training settings: steps, optimiser, trained weights, and memory savings.

    Weights are float32, except with ``adamw-bf16``: it converts the full model to bfloat16 when
    training starts, rounds updates stochastically and has 8-bit moments. It is for models that were
    published in bfloat16. ``recompute``, ``pack``, ``micro_batch`` and ``offload_reference`` do not
    change the result.

    Args:
        lr: peak learning rate.
        steps: optimiser steps.
        warmup: steps of linear warm-up.
        schedule: learning rate after the warm-up.
        weight_decay: decoupled weight decay, as in AdamW, on the weights that may move.
        betas: coefficients of the optimiser's running averages; by default the published ones.
        clip: largest norm of the gradient, after masking; None does not clip.
        parameters: regular expression: train the weights whose name contains a match; if empty,
            those that the method trains, which for most methods are all.
        perturbed: regular expression: weights that robust training and the penalty may perturb
            although they are not trained, such as those that RMU does not train; "." is all.
        micro_batch: examples per forward pass; a lower number saves memory.
        recompute: gradient checkpointing per block: less memory, a third more time.
        pack: concatenate the texts of a batch instead of padding them to the longest, which
            saves the time of padding (three tenths on TOFU at batch size 8).
        offload_reference: keep the original weights in host memory, for losses with a reference
            (NPO, KL, RMU), and copy one block at a time to the device.
        precision: precision of the forward pass; the weights are always float32.
        optimizer: adamw; sgd has momentum; signsgd moves every weight by the learning rate; mezo
            takes no gradient, only values of the loss; sophia uses curvature; adamw8bit and
            adamw-bf16 save memory (both need torchao), and adamw-bf16 makes the model bfloat16.
        average_from: average the weights over the steps from this one to the last.
        average_every: steps between the weights that are averaged.
    """

    lr: float
    steps: int
    warmup: int = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    weight_decay: float = 0.0
    betas: tuple[float, float] | None = None
    clip: float | None = 1.0
    parameters: str = ""
    perturbed: str | None = None
    micro_batch: int | None = None
    recompute: bool = False
    pack: bool = False
    offload_reference: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    optimizer: Kind = "adamw"
    average_from: int | None = None
    average_every: int = 5

    def __post_init__(self) -> None:
        if self.steps < 0 or not 0 < self.lr <= 1e30:
            raise ValueError(
                f"`steps` {self.steps}, `lr` {self.lr}: `steps` must be at least 0, `lr` above 0 "
                "and at most 1e30"
            )
        clipped = self.clip is None or self.clip > 0
        if not clipped or self.weight_decay < 0 or self.warmup < 0:
            raise ValueError(
                f"`clip` {self.clip}, `weight_decay` {self.weight_decay}, `warmup` {self.warmup}: "
                "`clip` must be above 0 or None, the others at least 0"
            )
        if self.micro_batch is not None and self.micro_batch < 1:
            raise ValueError(
                f"`micro_batch` {self.micro_batch}: it must be at least 1, or left out"
            )
        if self.betas is not None and not all(0 <= beta < 1 for beta in self.betas):
            betas = " ".join(map(str, self.betas))
            raise ValueError(f"`betas` {betas}: both must be at least 0 and below 1")
        for name, pattern in {"parameters": self.parameters, "perturbed": self.perturbed}.items():
            check_pattern(name, pattern or "")
        self.check_average()

    def check_average(self) -> None:
        """ValueError for settings that average over no step."""
        if self.average_every < 1:
            raise ValueError(f"`average_every` {self.average_every}: it must be at least 1")
        if self.average_from is not None and not 1 <= self.average_from <= self.steps:
            raise ValueError(
                f"`average_from` {self.average_from}: it must be a step from 1 to {self.steps}, "
                "the last one, or left out"
            )

    def rate(self, step: int) -> float:
        """Learning rate of step 0, 1, ...; linear and cosine would reach 0 at ``steps``."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        left = (self.steps - step) / max(1, self.steps - self.warmup)
        shape = {
            "constant": 1.0,
            "linear": left,
            "cosine": 0.5 * (1 - math.cos(math.pi * left)),
        }
        return self.lr * shape[self.schedule]


def check_pattern(name: str, pattern: str) -> None:
    """ValueError for the setting ``name`` if it is no regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"`{name}` {pattern!r} is no regular expression: {error}") from None
