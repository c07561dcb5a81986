"""Settings that depend on the model: choose those left out, and warn of unsuitable ones."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from ilu.data.stream import Stream, collate
from ilu.methods.masks.make import Masking
from ilu.models.forward import Frozen, ModelForward
from ilu.models.mlp import mlp_outputs_resolved
from ilu.runs.recipe import Recipe
from ilu.training.fit import Optim
from ilu.training.objective import Engine, Objective, Term, Views
from ilu.training.optim.bfloat16 import has_bfloat16_units, seen_step
from ilu.training.trainable import recomputed, training
from ilu.types import LM, Batch, Calibrated, Cautious, Params

COUNT = 16
"""Number of examples from which a setting is chosen."""
WEAK = 1e-3
"""Gradient norm of the forget term, relative to the retain term, below which a run warns."""
SAMPLE = 1000
"""Weights of each tensor on which rounding to bfloat16 is tried."""
DISTORTED, NEAR = 2.0, 1.25
"""Factor by which a first step may be misjudged without a warning, and that of a good judgement."""


class Chosen(NamedTuple):
    """A recipe in which every setting has a value, and a sentence for each that was chosen."""

    recipe: Recipe
    notes: Sequence[str]


def choose(recipe: Recipe, lm: LM, streams: Mapping[str, Stream]) -> Chosen:
    """Choose the settings that are None from the model and examples of each term."""
    objective: Objective = {}
    notes: list[str] = []
    for name, term in recipe.objective.items():
        if isinstance(term.loss, Calibrated):
            loss, note = term.loss.calibrated(ModelForward(lm.model), examples(term, streams, lm))
            term = replace(term, loss=loss)
            notes += [note] if note else []
        objective = {**objective, name: term}
    steps, note = enough_steps(recipe, streams)
    pattern = mlp_outputs_resolved(lm.model, recipe.optim.parameters)
    notes += [*([note] if note else []), *note_of_pattern(recipe, pattern)]
    optim, mask = replace(recipe.optim, steps=steps, parameters=pattern), recipe.mask
    if isinstance(mask, Masking) and mask.scoring.parameters == recipe.optim.parameters:
        mask = replace(mask, scoring=replace(mask.scoring, parameters=pattern))
    chosen = replace(recipe, objective=objective, optim=optim, mask=mask, passes=None)
    return Chosen(chosen, notes)


def enough_steps(recipe: Recipe, streams: Mapping[str, Stream]) -> tuple[int, str]:
    """The steps that make ``passes`` over the forget data, if these are more; and a sentence."""
    steps, term = recipe.optim.steps, recipe.objective.get("forget")
    if recipe.passes is None or term is None:
        return steps, ""
    stream = streams[term.on]
    examples, size = len(stream.examples), stream.batch_size
    needed = math.ceil(recipe.passes * examples / size)
    if needed <= steps:
        return steps, ""
    return needed, (
        f"steps {needed}: {recipe.passes:g} passes over {examples} forget examples, {size} a step"
    )


def note_of_pattern(recipe: Recipe, pattern: str) -> list[str]:
    """Which weights are trained, where the names of usual models are not those of this one."""
    return [] if pattern == recipe.optim.parameters else [f"trained weights: {pattern}"]


def examples(term: Term, streams: Mapping[str, Stream], lm: LM, count: int = COUNT) -> Batch:
    """Examples spread over the data of a term, the same for every seed."""
    every = streams[term.on].examples
    count = min(count, len(every))
    chosen = [every[i * len(every) // count] for i in range(count)]
    return collate(chosen).to(next(lm.model.parameters()).device)


def cautions(recipe: Recipe, lm: LM, streams: Mapping[str, Stream]) -> list[str]:
    """Warnings about settings that do not suit the model, each with its effect and a remedy."""
    losses = [
        term.loss.caution(ModelForward(lm.model), examples(term, streams, lm))
        for term in recipe.objective.values()
        if isinstance(term.loss, Cautious)
    ]
    weak = "" if any(losses) else weak_forget_term(recipe, lm, streams)
    params = list(lm.model.parameters())
    small = bfloat16_steps(recipe.optim, params) if full(recipe) else ""
    slow = slow_bfloat16(recipe.optim, params[0].device.type)
    return [each for each in (*losses, weak, small, slow) if each]


def full(recipe: Recipe) -> bool:
    """Whether the weights themselves are trained, and not adapters of them."""
    return bool(recipe.objective) and recipe.lora is None


def bfloat16_steps(optim: Optim, params: Params) -> str:
    """Warning of steps that a bfloat16 forward pass sees too large or too small; or empty."""
    if optim.precision != "bfloat16" or optim.lr == 0:
        return ""
    w = torch.cat([p.detach().flatten()[:SAMPLE].float() for p in params])
    first = seen_step(w, optim.lr)
    if 1 / DISTORTED <= first <= DISTORTED:
        return ""
    counts = range(1, optim.steps + 1, max(1, optim.steps // 100))
    later = next((n for n in counts if right(seen_step(w, n * optim.lr))), None)
    until = f"{later} steps together are seen rightly" if later else "so are all steps together"
    return (
        f"`precision` bfloat16: the forward pass sees the first step of `lr` {optim.lr:g} at "
        f"{first:.2g} times its size, because it rounds the weights; {until}. Use `precision` "
        "float32, or a larger `lr`"
    )


def right(seen: float) -> bool:
    """Whether what is seen of a step is near the step."""
    return 1 / NEAR <= seen <= NEAR


def slow_bfloat16(optim: Optim, device: str) -> str:
    """Warning of a CPU without bfloat16 units; empty if there is none."""
    if optim.precision != "bfloat16" or has_bfloat16_units(device):
        return ""
    return (
        "`precision` bfloat16: this CPU has no bfloat16 units, and a step may take ten times as "
        "long: use float32"
    )


def weak_forget_term(recipe: Recipe, lm: LM, streams: Mapping[str, Stream]) -> str:
    """Warning of a forget term whose gradient is almost zero; empty if there is none.

    Computed from one example of each term, which takes no more memory than a step. Skipped for
    low-rank adapters, which have other gradients, and for ``adamw-bf16``, because float32 gradients
    may not fit in memory.
    """
    if not full(recipe) or recipe.optim.optimizer == "adamw-bf16":
        return ""
    try:
        norms = gradient_norms(recipe, lm, streams)
    except torch.OutOfMemoryError:  # a warning must not end a run that would fit
        return ""
    forget, retain = norms.get("forget"), norms.get("retain")
    if forget is None or retain is None or forget > WEAK * retain:
        return ""
    return (
        f"the gradient of the forget term is {forget / max(retain, 1e-30):.1g} times that of the "
        "retain term at the first step: almost nothing will be forgotten"
    )


def gradient_norms(recipe: Recipe, lm: LM, streams: Mapping[str, Stream]) -> dict[str, float]:
    """Norm of the gradient of the forget and the retain term with their weights."""
    again = recipe.optim.recompute
    with training(lm.model, recipe.optim.parameters) as named, recomputed(lm.model, again):
        views = Views(ModelForward(lm.model), Frozen(lm.model, {}))
        engine = Engine(views, views, list(named.values()))
        return {
            name: gradient_norm(term, engine, examples(term, streams, lm, 1))
            for name, term in recipe.objective.items()
            if name in ("forget", "retain") and isinstance(term.weight, int | float)
        }


def gradient_norm(term: Term, engine: Engine, batch: Batch) -> float:
    """Norm of the gradient of a term with its weight."""
    assert isinstance(term.weight, int | float)
    grads = engine.slope(term.loss, batch, exact=False).grads
    return abs(term.weight) * math.hypot(*(g.float().norm().item() for g in grads))
