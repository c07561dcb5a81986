"""The recipes of ``ilu bench methods``: every method on the lab, several seeds."""

from dataclasses import replace
from pathlib import Path

from ilu.recipes.demo import Size, original, unlearned
from ilu.recipes.published import PUBLISHED
from ilu.recipes.registry import METHODS
from ilu.recipes.robust import ROBUST
from ilu.runs.recipe import Recipe

SIZE = Size(unlearn=1.0, tune=30, relearn=30, questions=100)
QUICK = Size(unlearn=0.02, tune=4, relearn=4, questions=20)
ORIGINAL = "original"
BASES = ("npo", "rmu")
"""Methods on which robust training, the penalty and the control are tried."""
NAMES = (
    ORIGINAL,
    *(name for name in METHODS if name not in PUBLISHED),
    *(f"{base}-{ending}" for base in BASES for ending in (*ROBUST, "ilu", "control")),
    "entropy-tar",
)


def jobs(names: tuple[str, ...], seeds: int, size: Size, out: Path) -> dict[Path, Recipe]:
    """A folder for every name and seed, and what to do there."""
    return {
        out / f"{name}-seed{seed}": replace(made(name, seed, size), keep_attacked=False)
        for seed in range(seeds)
        for name in names
    }


def made(name: str, seed: int, size: Size) -> Recipe:
    """The recipe of that name, or of the model as it is."""
    return original(seed, size) if name == ORIGINAL else unlearned(name, seed, size)
