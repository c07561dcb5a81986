"""Settings that depend on the model: choose the open ones, warn of those that do not suit it."""

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
"""Examples by which a setting is chosen."""
WEAK = 1e-3
"""Share of the retain term's gradient below which the forget term is said to do nothing."""
BFLOAT16 = 2.0**-8
"""Spacing of bfloat16 numbers over their size, at most."""


class Chosen(NamedTuple):
    """A recipe without open settings, and a sentence for each setting that was chosen."""

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
    pattern = mlp_outputs_resolved(lm.model, recipe.optim.parameters)
    notes += note_of_pattern(recipe, pattern)
    optim, mask = replace(recipe.optim, parameters=pattern), recipe.mask
    if isinstance(mask, Masking) and mask.scoring.parameters == recipe.optim.parameters:
        mask = replace(mask, scoring=replace(mask.scoring, parameters=pattern))
    return Chosen(replace(recipe, objective=objective, optim=optim, mask=mask), notes)


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
    """Sentences on settings that do not suit the model: what will go wrong, and what would do."""
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
    """A learning rate that a bfloat16 forward pass cannot see; empty if it can, or in float32."""
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
    """A forget term with almost no gradient, compared with the retain term; empty if it has one.

    By one example of each. Not tried for low-rank adapters, whose gradients are others, nor where
    the model becomes bfloat16 first to save the memory that this would need.
    """
    if not full(recipe) or recipe.optim.optimizer == "adamw-bf16":
        return ""
    try:
        norms = gradient_norms(recipe, lm, streams)
    except torch.OutOfMemoryError:  # advice may not end a run that would fit
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
