"""The recipes of ``ilu bench methods``: every method on the lab, several seeds."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ilu.recipes.demo import Size, original, unlearned
from ilu.recipes.registry import endings, methods
from ilu.runs.recipe import Recipe

SIZE = Size(unlearn=1.0, tune=30, relearn=30, questions=100)
QUICK = Size(unlearn=0.02, tune=4, relearn=4, questions=20)
SEEDS = (0, 1, 2)
ORIGINAL = "original"
BASES = ("npo", "rmu")
"""Methods that are combined with robust training, the penalty and the control."""


def names() -> tuple[str, ...]:
    """The original, every method, and every ending of ``BASES``."""
    ours = [name for name, method in methods().items() if not method.is_published_run]
    ended = [f"{base}-{end}" for base in BASES for end in (*endings(), "ilu", "control")]
    return (ORIGINAL, *ours, *ended, "entropy-tar")


def jobs(names: tuple[str, ...], seeds: Sequence[int], size: Size, out: Path) -> dict[Path, Recipe]:
    """The recipe of every name and seed, by its folder."""
    return {
        out / f"{name}-seed{seed}": replace(recipe_of(name, seed, size), keep_attacked=False)
        for seed in dict.fromkeys(seeds)
        for name in names
    }


def recipe_of(name: str, seed: int, size: Size) -> Recipe:
    """The recipe of that name, or one without unlearning for the original model."""
    return original(seed, size) if name == ORIGINAL else unlearned(name, seed, size)
