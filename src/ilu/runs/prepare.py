"""Load and check a recipe's model and data before training."""

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
from ilu.models.blocks import context_of
from ilu.models.forward import Frozen, ModelForward
from ilu.models.load import fingerprint_model, load_model, load_tokenizer, usable
from ilu.models.load_sharded import load_sharded
from ilu.models.lora import adapted_layers, warn_of_coverage
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
    """A recipe with its loaded model and data; ``data`` has their hashes.

    ``recipe`` includes the settings that were chosen for the model, described in ``notes``.
    """

    recipe: Recipe
    lm: LM
    streams: Mapping[str, Stream]
    data: Mapping[str, Any]
    notes: Sequence[str] = ()


def prepare(recipe: Recipe, device: str, ranks: Ranks = ALONE) -> Prepared:
    """Load model, data and mask, open the data of the attacks, and evaluate every loss once."""
    check_ranks(recipe, ranks)
    usable(own_device(device))
    check_inputs([recipe])
    tokenizer = load_tokenizer(recipe.model, recipe.revision)
    streams = open_streams(recipe, tokenizer)  # before the weights, which take longer to load
    lm = loaded(recipe, own_device(device), ranks, tokenizer)
    mask = given_mask(recipe, lm.model)
    for stream in streams.values():
        rows_of(stream(0), ranks)
    recipe, notes = choose(recipe, lm, streams)
    with attending_to_each_text(lm.model, recipe.optim.pack):  # raises now, not later
        try_losses(recipe, lm.model, streams)
    named_trained(lm.model, recipe.optim.parameters)
    if recipe.lora:
        layers = adapted_layers(lm.model, recipe.lora, recipe.optim.parameters)
        warn_of_coverage(lm.model, layers, recipe.lora, recipe.optim.parameters)
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


def open_streams(recipe: Recipe, tokenizer: Any) -> dict[str, Stream]:
    """The data of a recipe in batches; ValueError for what the model cannot read."""
    limit = context_of(recipe.model, recipe.revision)
    streams = {
        name: open_stream(
            feed,
            tokenizer,
            limit=limit,
            seed=recipe.seed,
            name=f"`{name}`",
            size=SIZE_OF.get(name) or SIZE_OF.get(feed.role, "batch_size"),
        )
        for name, feed in recipe.data.items()
    }
    warn_of_overlap(streams)
    return streams


SIZE_OF = {"environment": "environment_batch_size", DISTIL: "distil_batch_size"}
"""Role or name of data -> the setting of its batch size, if it is one of its own."""


def loaded(recipe: Recipe, device: str, ranks: Ranks, tokenizer: Any) -> LM:
    """The model of a recipe, sharded if the run is."""
    if ranks.sharded:
        return load_sharded(recipe.model, ranks, revision=recipe.revision, device=device)
    return load_model(recipe.model, revision=recipe.revision, device=device, tokenizer=tokenizer)


def fingerprint_attack(attack: Attack, lm: LM) -> dict[str, Any]:
    """Hashes of an attack's data and of the models that it reads."""
    models = {name: fingerprint_model(name, revision) for name, revision in other_models(attack)}
    return {**fingerprint(attack.data(lm)), **({"models": models} if models else {})}


def check_ranks(recipe: Recipe, ranks: Ranks) -> None:
    """ValueError for what a run in several processes does not support."""
    if ranks.size > 1 and (recipe.attacks or recipe.probes):
        raise ValueError("attacks run in one process: unlearn without them, then use ilu attack")
    if ranks.size > 1 and recipe.validation:
        raise ValueError(
            "several processes do not measure validation data: leave out `eval_every` and `keep`"
        )
    if ranks.sharded and isinstance(recipe.mask, Masking):
        raise ValueError(
            "sharded weights cannot be scored for a mask: make the mask first with ilu mask and "
            "give `mask` FILE, or leave out `shard`"
        )
    parts = {"LoRA": recipe.lora, "weight arithmetic": recipe.edit, "undo": recipe.undo}
    for what, used in parts.items():
        if ranks.sharded and used:
            raise ValueError(
                f"{what} does not support sharded weights: leave out `shard`; the batches are "
                "still divided among the processes"
            )


def try_losses(recipe: Recipe, model: nn.Module, streams: Mapping[str, Stream]) -> None:
    """Evaluate every loss on one example, so that a wrong layer fails before training."""
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
    """Enable gradients of the trained weights; yield False if no name matches the pattern.

    That error is raised later, because the error of a wrong layer is more useful.
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
    """Warn of a run that is shorter than its warm-up, so that it hardly trains."""
    if 0 < optim.steps < optim.warmup:
        warnings.warn(
            f"a warmup of {optim.warmup} steps in a run of {optim.steps}: the learning rate never "
            f"rises to {optim.lr:g}; lower `warmup` with `steps`",
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
    """Warn of examples that are both in the forget and in the retain set."""
    forget, retain = (
        hashes(streams[name]) if name in streams else [] for name in ("forget", "retain")
    )
    shared = int(np.isin(retain, forget).sum())
    if shared:
        warnings.warn(f"{shared} retain examples are in the forget set as well", stacklevel=2)
