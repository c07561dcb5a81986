"""The recipes of ``ilu demo``: the lab's model as it is, and four ways of unlearning it."""

import inspect
from dataclasses import dataclass, fields, replace

from ilu.models import LAB
from ilu.recipe import Recipe
from ilu.recipes import lab
from ilu.recipes.assemble import Common, assemble, defaults, parse_name
from ilu.recipes.methods import METHODS
from ilu.recipes.variants import Invariance
from ilu.train import Optim

METHOD_NAMES = ("rmu", "rmu-ilu", "npo", "npo-ilu")


@dataclass(frozen=True)
class Size:
    """How long the demo unlearns (relative to the lab's settings), tunes and relearns."""

    unlearn: float = 1.0
    tune: int = 120
    relearn: int = 60
    questions: int | None = None


FULL = Size()
QUICK = Size(unlearn=0.1, tune=4, relearn=4, questions=60)


def recipes(seed: int, size: Size) -> list[Recipe]:
    """The original first, because task vectors compare the others with it."""
    return [original(seed, size), *(unlearned(name, seed, size) for name in METHOD_NAMES)]


def original(seed: int, size: Size) -> Recipe:
    """No unlearning, the same attacks."""
    base = unlearned("npo", seed, size)
    return replace(base, name="original", objective={}, data={}, optim=Optim(lr=1e-3, steps=0))


def unlearned(name: str, seed: int, size: Size) -> Recipe:
    """A lab recipe with every attack."""
    known = defaults(name, LAB)
    plan = inspect.signature(METHODS[parse_name(name).method].plan).parameters
    common = {f.name: known[f.name] for f in fields(Common) if f.name in known}
    steps = max(2, round(size.unlearn * known["steps"]))
    invariance = {f.name: known[f.name] for f in fields(Invariance) if f.name in known}
    recipe = assemble(
        name,
        Common(model=LAB, seed=seed, **{**common, "steps": steps}),
        {k: known[k] for k in plan},
        invariance=Invariance(**invariance),
    )
    return replace(
        recipe,
        metrics=lab.metrics(size.questions),
        attacks=lab.attacks(size.tune, size.relearn, size.questions, seed),
        keep_attacked=True,
    )
