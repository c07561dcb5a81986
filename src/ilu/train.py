"""The one training loop: unlearning, attacks and the lab's pretraining are all calls of ``fit``."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from torch import nn

from ilu.checkpoint import Checkpoints, State
from ilu.curvature import curvature
from ilu.data import Stream, drawer
from ilu.extras import need
from ilu.forward import Frozen, ModelForward, named_trained
from ilu.objective import Engine, Objective, accumulate
from ilu.optimizers.averaging import Average
from ilu.optimizers.bfloat16 import fits_bfloat16, to_bfloat16
from ilu.optimizers.choose import Kind, optimizer_for
from ilu.optimizers.moving import movable, moving
from ilu.optimizers.optimizer import Named, update
from ilu.ranks import ALONE, Ranks
from ilu.remembered import Remembered
from ilu.robust.invariance import Square
from ilu.robust.rules import plain
from ilu.sharding import PutBack
from ilu.trained import recomputed, training
from ilu.types import Mask

Streams = Mapping[str, Stream]
Row = dict[str, float]
Log = Callable[[Row], None]


class Stopped(Exception):
    """Training was asked to stop; everything up to the last step is in the checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Optim:
    """An optimiser with warm-up and a schedule; ``clip`` bounds the masked gradient.

    ``parameters`` is a regular expression: weights whose name contains a match are trained, and
    those that match ``reach`` may be perturbed by gradient rules without being trained.
    ``micro_batch`` bounds the examples per forward pass, and with ``recompute`` the inside of a
    block is computed again for its gradient instead of kept; neither changes the result. ``betas``
    are the published ones of the optimiser if they are left out. ``average_from`` is the first step
    after which weights are averaged, then every ``average_every`` steps.

    Weights are float32, but with ``adamw-bf16``: the whole model, also what is not trained, becomes
    bfloat16 when training starts and stays so; updates are rounded stochastically and the moments
    have 8 bits. It is for models that were published in bfloat16, which lose nothing.
    """

    lr: float
    steps: int
    warmup: int = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    weight_decay: float = 0.0
    betas: tuple[float, float] | None = None
    clip: float = 1.0
    parameters: str = ""
    reach: str | None = None
    micro_batch: int | None = None
    recompute: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    optimizer: Kind = "adamw"
    average_from: int | None = None
    average_every: int = 5

    def __post_init__(self) -> None:
        if self.steps < 0 or not 0 < self.lr <= 1e30:
            raise ValueError(f"steps {self.steps}, lr {self.lr}: steps must be >= 0 and lr > 0")
        if self.clip <= 0 or self.weight_decay < 0 or self.warmup < 0:
            raise ValueError(
                f"clip {self.clip}, weight decay {self.weight_decay}, warmup {self.warmup}: "
                "clip must be above 0, the others at least 0"
            )
        if self.micro_batch is not None and self.micro_batch < 1:
            raise ValueError(f"micro_batch {self.micro_batch}: it must be at least 1, or left out")
        if self.betas is not None and not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas {self.betas}: both must be at least 0 and below 1")
        self.check_average()

    def check_average(self) -> None:
        """Refuse to average over no step."""
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
    """Minimise ``objective`` in place; weights outside ``mask`` and ``parameters`` keep their bits.

    ``model`` must hold the original weights when called, also to resume: they are the reference,
    and ``checkpoints`` then brings the later ones. Dropout stays off, so that model and reference
    agree at step 0. Raises ValueError at the first term or gradient that is not finite, and
    ``Stopped`` after saving, once ``stop()`` is true.
    """
    check_training(model, objective, optim, mask, ranks)
    with (
        training(model, optim.parameters, mask, optim.reach) as named,
        recomputed(model, optim.recompute),
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
            values = accumulate(objective, engine, draw, state.memory, step)
            check_finite(values, step, optim)
            free.gather()
            norm = update(free.parts, optimizer, step=step, rate=optim.rate(step),
                          decay=optim.weight_decay, clip=optim.clip, ranks=ranks)  # fmt: skip
            free.scatter()
            check_finite({"the gradient": norm}, step, optim)
            average.add(step + 1)
            log({"step": step, "lr": optim.rate(step), "grad_norm": norm, **values})
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
    """Raise ValueError for what an optimiser cannot do, before anything is trained."""
    movable(named_trained(model, optim.parameters), mask)
    if optim.reach is not None:
        named_trained(model, optim.reach)
    if ranks.sharded:
        check_sharded(optim)
    if optim.optimizer in ("adamw8bit", "adamw-bf16"):
        need("torchao", "torchao", f"optimizer {optim.optimizer}")
    if optim.optimizer != "adamw-bf16":
        return
    still = [term.rule is plain or isinstance(term.rule, Square) for term in objective.values()]
    ruled = [name for name, unmoved in zip(objective, still, strict=True) if not unmoved]
    if ruled:
        raise ValueError(
            f"adamw-bf16 cannot train term {ruled[0]!r}: its gradient is taken at perturbed "
            "weights and bfloat16 would round the perturbation away. Use adamw or adamw8bit"
        )
    if mask is not None and not fits_bfloat16(model):
        raise ValueError(
            "adamw-bf16 cannot keep masked weights: the model has float32 weights that bfloat16 "
            "would round. Use adamw or adamw8bit"
        )


def check_sharded(optim: Optim) -> None:
    """Raise ValueError for what cannot work, or has not been shown to, on parts of weights."""
    if optim.optimizer in ("adamw8bit", "adamw-bf16"):
        raise ValueError(
            f"{optim.optimizer} cannot be combined with --shard: its 8-bit blocks would straddle "
            "the parts. Use adamw, sophia or soul, or leave out --shard"
        )


def engine_for(
    model: nn.Module,
    objective: Objective,
    named: Named,
    optim: Optim,
    remembered: Remembered,
    ranks: Ranks = ALONE,
) -> Engine:
    """Views of the model for the losses; the trained weights are copied only if one needs them."""
    autocast = optim.precision == "bfloat16"
    needed = any(term.loss.needs_reference for term in objective.values())
    original = {n: p.detach().clone() for n, p in named.items()} if needed else None
    forward = ModelForward(model, autocast=autocast)
    frozen = Frozen(model, original, autocast=autocast, remembered=remembered)
    return Engine(
        forward=forward,
        exact=ModelForward(model),
        reference=PutBack(model, original, forward) if ranks.sharded else frozen,
        params=list(named.values()),
        micro_batch=optim.micro_batch,
        ranks=ranks,
    )


def check_finite(values: Row, step: int, optim: Optim) -> None:
    """Stop at the first value that is not a number."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(
                f"{name} became {value} at step {step} (lr {optim.rate(step):.3g}): lower --lr, "
                "or the weight of this term, or choose a bounded loss such as npo"
            )
