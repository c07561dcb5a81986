"""Further attacks on finished models: relearning by halves, and a search over the attacker.

They are runs of their own beside those that made the models: nothing is trained again, and each run
records the commit at which it was carried out.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from ilu.attacks.finetune import FineTune
from ilu.recipes import lab
from ilu.runs.recipe import Recipe
from ilu.runs.run_dir import RunDir
from ilu.training.fit import Optim
from studies.relearning.cells import (
    QUESTIONS,
    TINY_QUESTIONS,
    TINY_STEPS,
    Cell,
    attacked_place,
    place,
)

HALVES = get_args(lab.LabHalf)
HALF_STEPS = 60
"""Steps of relearning from half of the agents: four passes over their documents."""
SEARCHED = {
    "relearn-3e-3-30": (3e-3, 30),
    "relearn-3e-4-120": (3e-4, 120),
    "relearn-1e-3-120": (1e-3, 120),
}
"""Learning rate and steps of relearning from 20 agents: every model gets these and no others.

With the attack ``relearn`` of its own run, at 1e-3 for 30 steps, these are four trials.
"""


def further_attacks(seed: int, *, tiny: bool) -> dict[str, FineTune]:
    """The attacks, each measured at its end alone."""
    questions = TINY_QUESTIONS if tiny else QUESTIONS
    halves = {
        f"rtt-{half}": lab.relearn_half(half, TINY_STEPS if tiny else HALF_STEPS) for half in HALVES
    }
    searched = {
        name: lab.relearn(TINY_STEPS if tiny else steps, questions, lr=lr)
        for name, (lr, steps) in SEARCHED.items()
    }
    every = {**halves, **searched}
    return {name: replace(each, seed=seed, only_end=True) for name, each in every.items()}


def further_recipe(cell: Cell, model: str, seed: int, *, tiny: bool) -> Recipe:
    """The recipe that attacks the model of a finished run."""
    return Recipe(
        name=f"{cell.label}-attacks",
        model=model,
        data={},
        objective={},
        optim=Optim(lr=1e-3, steps=0),
        metrics=lab.metrics(TINY_QUESTIONS if tiny else QUESTIONS),
        attacks=further_attacks(seed, tiny=tiny),
        seed=seed,
    )


def further_jobs(
    out: Path, wanted: Sequence[Cell], seeds: int, *, tiny: bool = False
) -> dict[Path, Recipe]:
    """The attacks on every model whose run is finished."""
    places = [(cell, seed) for seed in range(seeds) for cell in wanted]
    return {
        attacked_place(out, cell, seed): further_recipe(cell, saved_model(run), seed, tiny=tiny)
        for cell, seed in places
        if (run := RunDir(place(out, cell, seed))).has("done")
    }


def saved_model(run: RunDir) -> str:
    """The folder of a run's model in full, or the name of a model of the package."""
    folder = Path(run.model)
    return str(folder.resolve()) if folder.is_dir() else run.model
