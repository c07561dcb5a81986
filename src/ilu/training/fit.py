"""The training loop of unlearning, attacks and the lab's pretraining: ``fit``."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from ilu.data.stream import Stream, drawer
from ilu.models.forward import Frozen, ModelForward
from ilu.models.fsdp import PutBack
from ilu.models.packing import attending_to_each_text
from ilu.models.reference_cache import Remembered
from ilu.models.reference_offload import host_copy
from ilu.models.weight_names import named_trained
from ilu.system.distributed import ALONE, Ranks
from ilu.system.optional import need
from ilu.training.checkpoint import Checkpoints, State
from ilu.training.checks import check_bfloat16, check_offloaded, check_sharded
from ilu.training.objective import Engine, Objective, Views, accumulate
from ilu.training.optim.averaging import Average
from ilu.training.optim.bfloat16 import to_bfloat16
from ilu.training.optim.by_name import Kind, optimizer_for
from ilu.training.optim.curvature import curvature
from ilu.training.optim.masked import movable, moving
from ilu.training.optim.protocol import Named
from ilu.training.optim.stepping import move_weights
from ilu.training.trainable import recomputed, training
from ilu.types import Mask

Streams = Mapping[str, Stream]
Row = dict[str, float]
Log = Callable[[Row], None]


class Stopped(Exception):
    """Training was stopped; the checkpoint has everything up to the last step."""


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
        optimizer: adamw; sgd has momentum; sophia uses curvature; adamw8bit and adamw-bf16
            save memory (both need torchao), and adamw-bf16 makes the model bfloat16.
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
                f"steps {self.steps}, lr {self.lr}: steps must be at least 0, and lr above 0 and "
                "at most 1e30"
            )
        clipped = self.clip is None or self.clip > 0
        if not clipped or self.weight_decay < 0 or self.warmup < 0:
            raise ValueError(
                f"clip {self.clip}, weight decay {self.weight_decay}, warmup {self.warmup}: "
                "clip must be above 0 or None, the others at least 0"
            )
        if self.micro_batch is not None and self.micro_batch < 1:
            raise ValueError(f"micro_batch {self.micro_batch}: it must be at least 1, or left out")
        if self.betas is not None and not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas {self.betas}: both must be at least 0 and below 1")
        self.check_average()

    def check_average(self) -> None:
        """ValueError for an average without a step."""
        if self.average_every < 1:
            raise ValueError(f"average_every {self.average_every}: it must be at least 1")
        if self.average_from is not None and not 1 <= self.average_from <= self.steps:
            raise ValueError(
                f"average_from {self.average_from}: it must be a step from 1 to {self.steps}, the "
                "last one, or left out"
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


def fit(
    model: nn.Module,
    objective: Objective,
    streams: Streams,
    optim: Optim,
    *,
    mask: Mask | None = None,
    log: Log = lambda row: None,
    checkpoints: Checkpoints | None = None,
    stop: Callable[[], bool] = lambda: False,
    ranks: Ranks = ALONE,
) -> None:
    """Minimise ``objective`` in place; weights outside ``mask`` and ``parameters`` do not change.

    ``model`` must have the original weights when called, also to resume: they are the reference,
    and ``checkpoints`` then restores the later ones. Dropout is off, so that model and reference
    agree at step 0. Raises ValueError at the first term or gradient that is not finite, and
    ``Stopped``, after saving, once ``stop()`` is true.
    """
    check_training(model, objective, optim, mask, ranks)
    with (
        training(model, optim.parameters, mask, optim.perturbed) as named,
        recomputed(model, optim.recompute),
        attending_to_each_text(model, optim.pack),
    ):
        if optim.optimizer == "adamw-bf16":
            to_bfloat16(model)
        free = moving(named, mask, optim.parameters)
        optimizer = optimizer_for(optim.optimizer, free.parts, optim.betas)
        average = Average(free.moved, optim.average_from, optim.average_every)
        remembered = Remembered()
        parts = {"optimizer": optimizer, "average": average, "reference": remembered}
        engine = engine_for(model, objective, named, optim, remembered, ranks)
        state = State() if checkpoints is None else checkpoints.load(parts, free.moved)
        draw = drawer(streams, state.drawn, engine.params[0].device, ranks)
        for step in range(state.step, optim.steps):
            optimizer.refresh(step, lambda s=step: free.pick(curvature(objective, engine, draw, s)))
            rate = optim.rate(step)
            values = accumulate(objective, engine, draw, state.memory, step)
            check_finite(values, step, optim)
            norm = move_weights(free, optimizer, step=step, rate=rate,
                                decay=optim.weight_decay, clip=optim.clip, ranks=ranks)  # fmt: skip
            check_finite({"the gradient": norm}, step, optim)
            average.add(step + 1)
            log({"step": step, "lr": rate, "grad_norm": norm, **values})
            stopping = ranks.any(stop()) and step + 1 < optim.steps
            if checkpoints and (stopping or checkpoints.due(step + 1)):
                checkpoints.save(parts, free.moved, replace(state, step=step + 1))
            if stopping:
                raise Stopped
        average.put()


def check_training(
    model: nn.Module,
    objective: Objective,
    optim: Optim,
    mask: Mask | None,
    ranks: Ranks = ALONE,
) -> None:
    """Raise ValueError for unsupported combinations of settings, before training."""
    movable(named_trained(model, optim.parameters), mask)
    if optim.perturbed is not None:
        named_trained(model, optim.perturbed)
    if ranks.sharded:
        check_sharded(optim.optimizer)
    if optim.offload_reference:
        check_offloaded(objective, ranks)
    if optim.optimizer in ("adamw8bit", "adamw-bf16"):
        need("torchao", "torchao", f"optimizer {optim.optimizer}")
    if optim.optimizer == "adamw-bf16":
        check_bfloat16(model, objective, mask)


def engine_for(
    model: nn.Module,
    objective: Objective,
    named: Named,
    optim: Optim,
    remembered: Remembered,
    ranks: Ranks = ALONE,
) -> Engine:
    """Views of the model for the losses. Trained weights are copied only if a loss needs them."""
    needs_reference = any(term.loss.needs_reference for term in objective.values())
    copy = host_copy if optim.offload_reference else torch.clone
    original = {n: copy(p.detach()) for n, p in named.items()} if needs_reference else None

    def views(autocast: bool) -> Views:
        forward = ModelForward(model, autocast=autocast, packed=optim.pack)
        frozen = Frozen(model, original, autocast=autocast, remembered=remembered,
                        offloaded=optim.offload_reference, packed=optim.pack)  # fmt: skip
        return Views(forward, PutBack(model, original, forward) if ranks.sharded else frozen)

    return Engine(
        views=views(optim.precision == "bfloat16"),
        exact=views(False),
        params=list(named.values()),
        micro_batch=optim.micro_batch,
        ranks=ranks,
    )


def check_finite(values: Row, step: int, optim: Optim) -> None:
    """Raise ValueError at the first value that is not finite."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(
                f"{name} became {value} at step {step} (lr {optim.rate(step):.3g}): lower `lr`, "
                "or the weight of this term, or choose a bounded loss such as npo"
            )
