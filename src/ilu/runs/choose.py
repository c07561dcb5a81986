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
from ilu.training.trainable import recomputed, training
from ilu.types import LM, Batch, Calibrated, Cautious, Params

COUNT = 16
"""Number of examples from which a setting is chosen."""
WEAK = 1e-3
"""Gradient norm of the forget term, relative to the retain term, below which a run warns."""
BFLOAT16 = 2.0**-8
"""Largest relative spacing of bfloat16 numbers."""


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
    small = small_steps(recipe.optim, list(lm.model.parameters())) if full(recipe) else ""
    return [each for each in (*losses, weak, small) if each]


def full(recipe: Recipe) -> bool:
    """Whether the weights themselves are trained, and not adapters of them."""
    return bool(recipe.objective) and recipe.lora is None


def small_steps(optim: Optim, params: Params) -> str:
    """Warning of a learning rate too small for a bfloat16 forward pass; empty if there is none."""
    if optim.precision != "bfloat16":
        return ""
    size = torch.cat([p.detach().flatten()[:1000].float().abs() for p in params]).median().item()
    spacing = BFLOAT16 * size
    if optim.lr * optim.steps >= spacing / 2:
        return ""
    return (
        f"`lr` {optim.lr:g} over {optim.steps} steps moves a weight by less than half the spacing "
        f"of bfloat16 ({spacing:.1g} at the median size of a weight), which the forward pass does "
        "not see: use `precision` float32, or a larger `lr`"
    )


def weak_forget_term(recipe: Recipe, lm: LM, streams: Mapping[str, Stream]) -> str:
    """Warning of a forget term whose gradient is almost zero; empty if there is none.

    Computed from one example of each term. Skipped for low-rank adapters, which have other
    gradients, and for ``adamw-bf16``, because float32 gradients may not fit in memory.
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
    with training(lm.model, recipe.optim.parameters) as named, recomputed(lm.model, True):
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
