"""Settings that depend on the model: chosen from it, or found not to suit it, before training."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from ilu.data.stream import Stream
from ilu.models.forward import Frozen, ModelForward
from ilu.runs.recipe import Recipe
from ilu.training.fit import Optim
from ilu.training.objective import Engine, Objective, Term, Views
from ilu.training.trainable import training
from ilu.types import LM, Batch, Calibrated, Cautious, Params

WEAK = 1e-3
"""Share of the retain term's gradient below which the forget term is said to do nothing."""
BFLOAT16 = 2.0**-8
"""Spacing of bfloat16 numbers over their size, at most."""


class Chosen(NamedTuple):
    """A recipe without open settings, and a sentence for each setting that was chosen."""

    recipe: Recipe
    notes: Sequence[str]


def choose(recipe: Recipe, lm: LM, streams: Mapping[str, Stream]) -> Chosen:
    """Choose the settings that are None from the model and the first batch of each term."""
    objective: Objective = {}
    notes: list[str] = []
    for name, term in recipe.objective.items():
        if isinstance(term.loss, Calibrated):
            loss, note = term.loss.calibrated(
                ModelForward(lm.model), first_batch(term, streams, lm)
            )
            term = replace(term, loss=loss)
            notes += [note] if note else []
        objective = {**objective, name: term}
    return Chosen(replace(recipe, objective=objective), notes)


def first_batch(term: Term, streams: Mapping[str, Stream], lm: LM) -> Batch:
    """The first batch of a term, on the device of the model."""
    return streams[term.on](0).to(next(lm.model.parameters()).device)


def cautions(recipe: Recipe, lm: LM, streams: Mapping[str, Stream]) -> list[str]:
    """Sentences on settings that do not suit the model: what will go wrong, and what would do."""
    losses = [
        term.loss.caution(ModelForward(lm.model), first_batch(term, streams, lm))
        for term in recipe.objective.values()
        if isinstance(term.loss, Cautious)
    ]
    weak = "" if any(losses) else weak_forget_term(recipe, lm, streams)
    small = small_steps(recipe.optim, list(lm.model.parameters()))
    return [each for each in (*losses, weak, small) if each]


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

    Not tried for low-rank adapters, whose gradients are others.
    """
    if recipe.lora:
        return ""
    with training(lm.model, recipe.optim.parameters) as named:
        views = Views(ModelForward(lm.model), Frozen(lm.model, {}))
        engine = Engine(views, views, list(named.values()), recipe.optim.micro_batch)
        norms = {
            name: gradient_norm(term, engine, first_batch(term, streams, lm))
            for name, term in recipe.objective.items()
            if name in ("forget", "retain") and isinstance(term.weight, int | float)
        }
    forget, retain = norms.get("forget"), norms.get("retain")
    if forget is None or retain is None or forget > WEAK * retain:
        return ""
    return (
        f"the gradient of the forget term is {forget / max(retain, 1e-30):.1g} times that of the "
        "retain term at the first step: almost nothing will be forgotten"
    )


def gradient_norm(term: Term, engine: Engine, batch: Batch) -> float:
    """Norm of the gradient of a term with its weight."""
    assert isinstance(term.weight, int | float)
    grads = engine.slope(term.loss, batch, exact=False).grads
    return abs(term.weight) * float(sum(g.double().square().sum() for g in grads) ** 0.5)
