"""A recipe's model and data, loaded and tried before anything is trained."""

import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ilu.attacks.sequence import other_models
from ilu.data.stream import Stream, fingerprint, open_stream, rows_of, split
from ilu.methods.masks.make import Masking
from ilu.methods.robust.undo import DISTIL
from ilu.models.blocks import context_length
from ilu.models.forward import Frozen, ModelForward
from ilu.models.load import fingerprint_model, load_model, usable
from ilu.models.load_sharded import load_sharded
from ilu.models.lora import adapted_layers
from ilu.models.packing import attending_to_each_text
from ilu.models.weight_names import named_trained
from ilu.runs.check import check_inputs
from ilu.runs.choose import choose
from ilu.runs.mask_stage import given_mask
from ilu.runs.recipe import Recipe
from ilu.system.atomic import file_hash
from ilu.system.distributed import ALONE, Ranks, own_device
from ilu.training.fit import Optim, check_training
from ilu.training.trainable import recomputed, training
from ilu.types import LM, Attack


@dataclass(frozen=True)
class Prepared:
    """A recipe whose model and data are loaded and fit together; ``data`` identifies them.

    ``recipe`` has the settings that were chosen for the model, and ``notes`` say how.
    """

    recipe: Recipe
    lm: LM
    streams: Mapping[str, Stream]
    data: Mapping[str, Any]
    notes: Sequence[str] = ()


def prepare(recipe: Recipe, device: str, ranks: Ranks = ALONE) -> Prepared:
    """Load model, data and mask, open what the attacks need, and try every loss."""
    check_ranks(recipe, ranks)
    usable(own_device(device))
    check_inputs(recipe)
    lm = loaded(recipe, own_device(device), ranks)
    limit = context_length(lm.model)
    streams = {
        name: open_stream(feed, lm.tokenizer, limit=limit, seed=recipe.seed, name=f"`{name}`")
        for name, feed in recipe.data.items()
    }
    warn_of_overlap(streams)
    for stream in streams.values():
        rows_of(stream(0), ranks)
    recipe, notes = choose(recipe, lm, streams)
    with attending_to_each_text(lm.model, recipe.optim.pack):  # refused before anything is written
        try_losses(recipe, lm.model, streams)
    named_trained(lm.model, recipe.optim.parameters)
    if recipe.lora:
        adapted_layers(lm.model, recipe.lora, recipe.optim.parameters)
    mask = given_mask(recipe, lm.model)
    check_training(lm.model, recipe.objective, recipe.optim, mask, ranks)
    if stage := recipe.distillation():
        check_distilled(streams)
        try_losses(stage, lm.model, streams)
        check_training(lm.model, stage.objective, stage.optim, None, ranks)
    warn_of_warmup(recipe.optim)
    data = {name: fingerprint(s.examples) for name, s in streams.items()}
    attacks = {f"attack {n}": fingerprint_attack(a, lm) for n, a in recipe.attacks.items()}
    weights = {"model": fingerprint_model(recipe.model, recipe.revision)}
    masked = {"mask": file_hash(Path(recipe.mask))} if isinstance(recipe.mask, str) else {}
    return Prepared(recipe, lm, streams, {**data, **attacks, **weights, **masked}, notes)


def loaded(recipe: Recipe, device: str, ranks: Ranks) -> LM:
    """The model of a recipe, whole or in parts."""
    if ranks.sharded:
        return load_sharded(recipe.model, ranks, revision=recipe.revision, device=device)
    return load_model(recipe.model, revision=recipe.revision, device=device)


def fingerprint_attack(attack: Attack, lm: LM) -> dict[str, Any]:
    """What tells the data of an attack from other data, and the models that it reads."""
    models = {name: fingerprint_model(name, revision) for name, revision in other_models(attack)}
    return {**fingerprint(attack.data(lm)), **({"models": models} if models else {})}


def check_ranks(recipe: Recipe, ranks: Ranks) -> None:
    """Raise ValueError for what several processes cannot do together."""
    if ranks.size > 1 and (recipe.attacks or recipe.probes):
        raise ValueError("attacks run in one process: unlearn without them, then use ilu attack")
    if ranks.sharded and isinstance(recipe.mask, Masking):
        raise ValueError(
            "weights are scored where they are whole: make the mask before, with ilu mask, and "
            "give `mask` FILE; or leave out `shard`"
        )
    whole = {"LoRA": recipe.lora, "weight arithmetic": recipe.edit, "undo": recipe.undo}
    for what, wanted in whole.items():
        if ranks.sharded and wanted:
            raise ValueError(
                f"{what} needs whole weights in every process: leave out `shard`; several "
                "processes still share the batches"
            )


def try_losses(recipe: Recipe, model: nn.Module, streams: Mapping[str, Stream]) -> None:
    """Let a wrong layer or an impossible loss fail now and not after an hour."""
    device, pattern = next(model.parameters()).device, recipe.optim.parameters
    with with_gradients(model, recipe.optim) as matched, recomputed(model, True):
        for name, term in recipe.objective.items():
            one = split(streams[term.on](0), 1)[0].to(device)
            reference = Frozen(model, {} if term.loss.needs.reference else None)
            loss = term.loss(ModelForward(model), reference, one)
            if matched and not loss.requires_grad:
                raise ValueError(
                    f"the term {name!r} does not depend on any weight that matches {pattern!r}: "
                    "train weights before the layer that it reads"
                )


@contextmanager
def with_gradients(model: nn.Module, optim: Optim) -> Generator[bool]:
    """Let what is trained have gradients; False where no name matches, which is told later.

    What a wrong layer has to say comes first.
    """
    try:
        named_trained(model, optim.parameters)
    except ValueError:
        with torch.no_grad():
            yield False
        return
    with training(model, optim.parameters):
        yield True


def warn_of_warmup(optim: Optim) -> None:
    """Say that a short run of long-warmed settings, such as published ones, hardly trains."""
    if 0 < optim.steps < optim.warmup:
        warnings.warn(
            f"a warmup of {optim.warmup} steps in a run of {optim.steps}: the learning rate never "
            f"comes to {optim.lr:g}; lower `warmup` with `steps`",
            stacklevel=2,
        )


def check_distilled(streams: Mapping[str, Stream]) -> None:
    """Refuse to distil on data that contain all that is to be forgotten, and warn of a part."""
    if "forget" not in streams:
        return
    forget, distil = (hashes(streams[name]) for name in ("forget", DISTIL))
    shared = int(np.isin(forget, distil).sum())
    if shared == len(forget):
        raise ValueError(
            "`distil` contains the data to forget, and distillation on it would bring it back: "
            "give general text"
        )
    if shared:
        warnings.warn(f"{shared} forget examples are in the data to distil on", stacklevel=2)


def hashes(stream: Stream) -> NDArray[np.int64]:
    """8 bytes of each example: they may be more than fit in memory."""
    return np.fromiter((hash(tuple(e.ids)) for e in stream.examples), np.int64)


def warn_of_overlap(streams: Mapping[str, Stream]) -> None:
    """Say how many examples are both to be forgotten and to be kept."""
    forget, retain = (
        hashes(streams[name]) if name in streams else [] for name in ("forget", "retain")
    )
    shared = int(np.isin(retain, forget).sum())
    if shared:
        warnings.warn(f"{shared} retain examples are in the forget set as well", stacklevel=2)
