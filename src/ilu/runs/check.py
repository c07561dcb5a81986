"""Checks of a recipe's data, patterns and layers that do not need its model."""

import os
from pathlib import Path

from ilu.attacks.sequence import other_models
from ilu.data.inputs import check_files
from ilu.methods.forget.lat import Latent
from ilu.models.blocks import check_layer, number_of_blocks
from ilu.models.named import check_name, is_local
from ilu.runs.recipe import Recipe
from ilu.types import Loss


def check_inputs(recipe: Recipe) -> None:
    """ValueError for models, local data and layers that a run cannot use; loads no weights."""
    check_name(recipe.model, recipe.revision)
    for attack in recipe.attacks.values():
        for name, revision in other_models(attack):
            check_name(name, revision)
    check_files((recipe.data, recipe.attacks, recipe.metrics, recipe.probes))
    check_layers(recipe)


def check_layers(recipe: Recipe) -> None:
    """ValueError for a block that the model lacks, where its configuration is on this machine."""
    layers = [layer for term in recipe.objective.values() for layer in layers_of(term.loss)]
    depth = number_of_blocks(recipe.model) if layers and is_local(recipe.model) else None
    if depth is not None:
        for layer in layers:
            check_layer(layer, depth)


def layers_of(loss: Loss) -> tuple[int, ...]:
    """The decoder blocks whose output a loss reads or shifts."""
    shifted = (loss.attack.attack_layer,) if isinstance(loss, Latent) else ()
    return (*loss.needs.blocks, *shifted)


def check_writable(path: Path) -> None:
    """ValueError for a folder that cannot be made."""
    parent = next(each for each in path.absolute().parents if each.exists())
    if not parent.is_dir():
        raise ValueError(f"{path} cannot be made: {parent} is a file. Choose another `out`")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ValueError(
            f"{path} cannot be made: {parent} cannot be written. Choose another `out`, or change "
            "its permissions"
        )
