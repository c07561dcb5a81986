"""The training loop of unlearning, attacks and the lab's pretraining: ``fit``."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import nn

from ilu.data.stream import Stream, drawer
from ilu.models.forward import Frozen, ModelForward
from ilu.models.fsdp import PutBack
from ilu.models.packing import attending_to_each_text
from ilu.models.reference_cache import ReferenceCache
from ilu.models.reference_offload import host_copy
from ilu.models.weight_names import named_trained
from ilu.system.distributed import ALONE, Ranks
from ilu.system.errors import Stopped
from ilu.system.optional import need
from ilu.training.checkpoint import Checkpoints, State
from ilu.training.checks import check_bfloat16, check_known, check_offloaded, check_sharded
from ilu.training.objective import Engine, Objective, Views, accumulate
from ilu.training.optim.averaging import Average
from ilu.training.optim.bfloat16 import to_bfloat16
from ilu.training.optim.by_name import optimizer_for
from ilu.training.optim.curvature import curvature
from ilu.training.optim.masked import movable, moving
from ilu.training.optim.mezo import check_values, estimate
from ilu.training.optim.protocol import Named
from ilu.training.optim.settings import Optim
from ilu.training.optim.stepping import move_weights
from ilu.training.trainable import recomputed, training
from ilu.types import Mask

Streams = Mapping[str, Stream]
Row = dict[str, float]
Log = Callable[[Row], None]


def fit(
    model: nn.Module,
    objective: Objective,
    streams: Streams,
    optim: Optim,
    *,
    mask: Mask | None = None,
    start: Callable[[Named], None] = lambda named: None,
    log: Log = lambda row: None,
    checkpoints: Checkpoints | None = None,
    stop: Callable[[], bool] = lambda: False,
    ranks: Ranks = ALONE,
) -> None:
    """Minimise ``objective`` in place; weights outside ``mask`` and ``parameters`` do not change.

    ``model`` must have the original weights when called, also to resume: they are the reference.
    Then ``start`` may change the weights that have a gradient, and ``checkpoints`` restores later
    ones. Dropout is off, so that model and reference agree at step 0 if ``start`` changes nothing.
    Raises ValueError at the first term or gradient that is not finite, and ``Stopped``, after
    saving, once ``stop()`` is true.
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
        cache = ReferenceCache()
        parts = {"optimizer": optimizer, "average": average, "reference": cache}
        engine = engine_for(model, objective, named, optim, cache, ranks)
        start(named)
        state = State() if checkpoints is None else checkpoints.load(parts, free.moved)
        draw = drawer(streams, state.drawn, engine.params[0].device, ranks)
        for step in range(state.step, optim.steps):
            optimizer.refresh(step, lambda s=step: free.pick(curvature(objective, engine, draw, s)))
            rate = optim.rate(step)
            if optim.optimizer == "mezo":
                values = estimate(objective, engine, free, draw, state.memory, step)
            else:
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
    """ValueError for settings that the optimiser does not support, before training."""
    check_known(optim.optimizer)
    movable(named_trained(model, optim.parameters), mask)
    if optim.perturbed is not None:
        named_trained(model, optim.perturbed)
    if optim.optimizer == "mezo":
        check_values(objective)
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
    cache: ReferenceCache,
    ranks: Ranks = ALONE,
) -> Engine:
    """Views of the model for the losses; the trained weights are copied only if one needs them."""
    needs_reference = any(term.loss.needs.reference for term in objective.values())
    copy = host_copy if optim.offload_reference else torch.clone
    original = {n: copy(p.detach()) for n, p in named.items()} if needs_reference else None

    def views(autocast: bool) -> Views:
        forward = ModelForward(model, autocast=autocast, packed=optim.pack)
        frozen = Frozen(model, original, autocast=autocast, cache=cache,
                        offloaded=optim.offload_reference, packed=optim.pack)  # fmt: skip
        return Views(forward, PutBack(model, original, forward) if ranks.sharded else frozen)

    exact = views(False)
    return Engine(
        views=views(True) if optim.precision == "bfloat16" else exact,
        exact=exact,
        params=list(named.values()),
        micro_batch=optim.micro_batch,
        ranks=ranks,
    )


def check_finite(values: Row, step: int, optim: Optim) -> None:
    """ValueError for a value that is not finite."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(
                f"{name} became {value} at step {step} (lr {optim.rate(step):.3g}): lower `lr`, "
                "or the weight of this term, or choose a bounded loss such as npo"
            )
