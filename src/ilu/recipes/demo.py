"""The recipes of ``ilu demo``: the lab's model as it is, and four ways of unlearning it."""

from dataclasses import dataclass, replace

from ilu.models.named import LAB
from ilu.recipes import lab
from ilu.recipes.build import build, defaults
from ilu.runs.recipe import Recipe
from ilu.training.fit import Optim

NAMES = ("rmu", "rmu-ilu", "npo", "npo-ilu")


@dataclass(frozen=True)
class Size:
    """Length of the demo: unlearning relative to the lab's settings, steps of the attacks.

    ``questions`` of each kind are asked at every measurement; None asks all.
    """

    unlearn: float
    tune: int
    relearn: int
    questions: int | None


FULL = Size(unlearn=1.0, tune=120, relearn=60, questions=None)
QUICK = Size(unlearn=0.1, tune=4, relearn=4, questions=60)


def recipes(seed: int, size: Size) -> list[Recipe]:
    """The original first, because task vectors compare the others with it."""
    return [original(seed, size), *(unlearned(name, seed, size) for name in NAMES)]


def original(seed: int, size: Size) -> Recipe:
    """No unlearning, the same attacks."""
    nothing = Optim(lr=1e-3, steps=0)
    return replace(
        unlearned("npo", seed, size), name="original", objective={}, data={}, optim=nothing
    )


def unlearned(name: str, seed: int, size: Size) -> Recipe:
    """A lab recipe with every attack."""
    steps = max(2, round(size.unlearn * defaults(name, LAB)["steps"]))
    return replace(
        build(name, {"model": LAB, "seed": seed, "steps": steps}),
        metrics=lab.metrics(size.questions),
        attacks=lab.attacks(size.tune, size.relearn, size.questions, seed),
        keep_attacked=True,
    )
