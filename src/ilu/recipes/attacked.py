"""Attacks for every run of a sweep, by name."""

import re
from collections.abc import Sequence
from dataclasses import replace

from ilu.attacks.finetune import FineTune
from ilu.lab.tasks import TASKS
from ilu.models.load import LAB
from ilu.recipes.attacks import Attacker, label
from ilu.recipes.tuning import KNOWN
from ilu.runs.recipe import Recipe
from ilu.training.fit import Optim
from ilu.types import Attack

RELEARN = "relearn"
ON_DATA = {"relearn": "forget", "retained": "retain", "unrelated": "unrelated",
           "interpolate": "original"}  # fmt: skip
"""Kinds of attack that ask for more, which the lab has, and the flag of ``ilu attack`` for it."""


def attack_names(model: str) -> list[str]:
    """What ``all`` means: the lab's six tasks or those of the hub, and relearning."""
    return [*((t.name for t in TASKS) if model == LAB else KNOWN), RELEARN]


def chosen(model: str, wanted: str) -> list[str]:
    """Read ``all``, ``none``, or names and files with commas between."""
    if wanted == "none":
        return []
    return attack_names(model) if wanted == "all" else split_names(wanted)


def split_names(text: str) -> list[str]:
    """Names with commas between; those of ``blocks:0,1:TASK`` are within one."""
    return re.split(r",(?![\d,]+:)", text)


def with_attacks(
    recipe: Recipe, names: Sequence[str], optim: Optim, *, batch_size: int = 16
) -> Recipe:
    """The recipe with these attacks behind it; weights after them are not kept."""
    found = {label(name): attack(recipe, name, optim, batch_size) for name in names}
    if len(found) < len(set(names)):
        raise ValueError(f"two of {', '.join(names)} would be called the same: rename one")
    return replace(recipe, attacks={**recipe.attacks, **found})


def attack(recipe: Recipe, name: str, optim: Optim, batch_size: int) -> Attack:
    """Fine-tuning on a task; relearning of the user's own data is on the forget set."""
    if name == RELEARN and recipe.model != LAB:
        if "forget" not in recipe.data:
            raise ValueError("the attack 'relearn' needs a `forget` set, which this recipe lacks")
        return FineTune(recipe.data["forget"], optim, seed=recipe.seed)
    kind = name.partition(":")[0]
    if recipe.model != LAB and name != kind and kind in ON_DATA:
        raise ValueError(
            f"the attack {name!r} needs data or a model of its own: use ilu attack on the run's "
            f"model, with `{ON_DATA[kind]}`"
        )
    return Attacker(optim=optim, batch_size=batch_size, seed=recipe.seed)(name)
