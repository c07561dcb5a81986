"""Checks of a recipe's data, mask, patterns and layers that do not need its model."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ilu.attacks.ablate import Ablate
from ilu.attacks.sequence import other_models
from ilu.data.inputs import check_files
from ilu.methods.forget.lat import Latent
from ilu.methods.masks.storage import MaskFile, check_shapes
from ilu.models.blocks import check_layer, number_of_blocks
from ilu.models.load_sharded import skeleton
from ilu.models.named import check_name, is_at_hand, is_local
from ilu.runs.recipe import Recipe
from ilu.types import Loss


def check_inputs(recipes: Sequence[Recipe]) -> None:
    """ValueError for models, local data, masks and layers that runs cannot use; loads no weights.

    What several recipes share is checked once.
    """
    models = [(each.model, each.revision) for each in recipes]
    models += [
        other for each in recipes for attack in each.attacks.values()
        for other in other_models(attack)
    ]  # fmt: skip
    for name, revision in dict.fromkeys(models):
        check_name(name, revision)
    check_files(tuple((each.data, each.attacks, each.all_metrics, each.probes) for each in recipes))
    given = [(each.mask, each.model) for each in recipes if isinstance(each.mask, str)]
    for mask, model in dict.fromkeys(given):
        check_mask(Path(mask), model)
    for each in recipes:
        check_layers(each)


def check_mask(path: Path, model: str) -> None:
    """ValueError for a file that is no mask, or not of the shapes of a model on this machine."""
    mask = MaskFile(path)
    _ = mask.record  # refuses what is no mask
    if is_local(model):
        check_shapes(mask, skeleton(model))


def check_layers(recipe: Recipe) -> None:
    """ValueError for a block that the model lacks, where its configuration is on this machine."""
    layers = [layer for term in recipe.objective.values() for layer in layers_of(term.loss)]
    layers += [each.layer for each in recipe.attacks.values() if isinstance(each, Ablate)]
    model = (recipe.model, recipe.revision)
    depth = number_of_blocks(*model) if layers and is_at_hand(*model) else None
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
    try:
        os.rmdir(tempfile.mkdtemp(dir=parent))  # a file system may refuse what permissions allow
    except OSError as error:
        raise ValueError(
            f"{path} cannot be made: no folder can be made in {parent} ({error.strerror}). "
            "Choose another `out`"
        ) from None
