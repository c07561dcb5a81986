"""The one training loop: unlearning, attacks and the lab's pretraining are all calls of ``fit``."""

import math
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from ilu.checkpoint import Checkpoints, State
from ilu.data import Stream
from ilu.forward import Frozen, ModelForward, named_trained
from ilu.objective import Engine, Objective, accumulate
from ilu.types import Batch, Mask

Streams = Mapping[str, Stream]
Row = dict[str, float]
Log = Callable[[Row], None]


class Stopped(Exception):
    """Training was asked to stop; everything up to the last step is in the checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Optim:
    """AdamW with float32 weights, warm-up and a schedule; ``clip`` bounds the masked gradient.

    ``parameters`` is a regular expression: weights whose name contains a match are trained.
    ``micro_batch`` bounds the examples per forward pass without changing the result.
    """

    lr: float
    steps: int
    warmup: int = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 1.0
    parameters: str = ""
    micro_batch: int | None = None
    precision: Literal["float32", "bfloat16"] = "float32"

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
) -> None:
    """Minimise ``objective`` in place; weights outside ``mask`` and ``parameters`` keep their bits.

    ``model`` must hold the original weights when called, also to resume: they are the reference,
    and ``checkpoints`` then brings the later ones. Dropout stays off, so that model and reference
    agree at step 0. Raises ValueError at the first term or gradient that is not finite, and
    ``Stopped`` after saving, once ``stop()`` is true.
    """
    with training(model, optim.parameters) as named:
        params = list(named.values())
        adam = torch.optim.AdamW(params, lr=optim.lr, betas=optim.betas, weight_decay=0.0)
        engine = engine_for(model, objective, named, optim)
        state = State() if checkpoints is None else checkpoints.load(named, adam)
        draw = drawer(streams, state.drawn, params[0].device)
        for step in range(state.step, optim.steps):
            values = accumulate(objective, engine, draw)
            check_finite(values, step, optim)
            norm = update(named, adam, optim, step, mask)
            check_finite({"the gradient": norm}, step, optim)
            log({"step": step, "lr": optim.rate(step), "grad_norm": norm, **values})
            stopping = stop() and step + 1 < optim.steps
            if checkpoints and (stopping or checkpoints.due(step + 1)):
                checkpoints.save(named, adam, State(step + 1, state.drawn))
            if stopping:
                raise Stopped


def engine_for(
    model: nn.Module, objective: Objective, named: Mapping[str, nn.Parameter], optim: Optim
) -> Engine:
    """Views of the model for the losses; the trained weights are copied only if one needs them."""
    autocast = optim.precision == "bfloat16"
    needed = any(term.loss.needs_reference for term in objective.values())
    original = {n: p.detach().clone() for n, p in named.items()} if needed else None
    return Engine(
        forward=ModelForward(model, autocast=autocast),
        exact=ModelForward(model),
        reference=Frozen(model, original, autocast=autocast),
        params=list(named.values()),
        micro_batch=optim.micro_batch,
    )


def update(
    named: Mapping[str, nn.Parameter],
    adam: torch.optim.AdamW,
    optim: Optim,
    step: int,
    mask: Mask | None,
) -> float:
    """Mask, clip, decay and step; return the gradient norm before clipping.

    Decay is ours and not AdamW's, which would move masked weights.
    """
    rate = optim.rate(step)
    decay = optim.weight_decay * rate
    for name, p in named.items():
        if mask is not None and p.grad is not None:
            p.grad.mul_(mask[name])
        if decay:
            p.data.mul_(1 - decay if mask is None else 1 - decay * mask[name])
    norm = nn.utils.clip_grad_norm_(list(named.values()), optim.clip).item()
    if math.isfinite(norm):
        adam.param_groups[0]["lr"] = rate
        adam.step()
    adam.zero_grad()
    return norm


@contextmanager
def training(model: nn.Module, pattern: str) -> Generator[Mapping[str, nn.Parameter]]:
    """Let only the weights matching ``pattern`` require a gradient, and switch dropout off."""
    named = named_trained(model, pattern)
    wanted = {n: p.requires_grad for n, p in model.named_parameters()}
    was_training = model.training
    model.eval()
    for n, p in model.named_parameters():
        p.requires_grad_(n in named)
    try:
        yield named
    finally:
        for n, p in model.named_parameters():
            p.requires_grad_(wanted[n])
        model.train(was_training)


def drawer(streams: Streams, drawn: dict[str, int], device: torch.device) -> Callable[[str], Batch]:
    """Next batch of a named stream; ``drawn`` counts them, so that a checkpoint can continue."""

    def draw(on: str) -> Batch:
        if on not in streams:
            raise ValueError(f"no stream {on!r}; the data has: {', '.join(sorted(streams))}")
        drawn[on] = drawn.get(on, 0) + 1
        return streams[on](drawn[on] - 1).to(device)

    return draw


def check_finite(values: Row, step: int, optim: Optim) -> None:
    """Stop at the first value that is not a number."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(
                f"{name} became {value} at step {step} (lr {optim.rate(step):.3g}): lower --lr, "
                "or the weight of this term, or choose a bounded loss such as npo"
            )
