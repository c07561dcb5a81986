"""A run that is carried out once: its folder is named by everything that decides its numbers."""

from dataclasses import replace
from pathlib import Path

from ilu.files import json_hash
from ilu.models import weights_hash
from ilu.prepare import prepare
from ilu.recipe import Recipe, describe
from ilu.run import Options, run_prepared
from ilu.rundir import RunDir


def run_once(recipe: Recipe, folder: Path, options: Options = Options()) -> RunDir:
    """The run of ``recipe`` in ``folder``, carried out or continued only if it is not finished.

    Named by a hash of the recipe, the content of its data and the weights it starts from.
    """
    prepared = prepare(recipe, options.device)
    weights = weights_hash(prepared.lm.model)
    key = json_hash([describe(recipe), prepared.data, weights])
    path = folder / f"{recipe.name}-{key[:16]}"
    return run_prepared(recipe, prepared, path, replace(options, resume=path.exists()))
