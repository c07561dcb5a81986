"""Live tracking of a run in Trackio, Weights & Biases or TensorBoard, through Accelerate."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ilu.runs.recipe import Recipe
from ilu.system.optional import Tracker, need
from ilu.system.scores import Score

Track = Callable[[Mapping[str, float], int], None]
"""Called with values and with the optimiser's steps done so far, those of attacks included."""


def untracked(values: Mapping[str, float], step: int) -> None:
    """Track nothing."""


def of_attack(
    recipe: Recipe, name: str, done: int, scores: Mapping[str, Score]
) -> tuple[dict[str, float], int]:
    """Scores after ``done`` steps of an attack for a tracker, with the steps of all training."""
    earlier = list(recipe.attacks)[: list(recipe.attacks).index(name)]
    before = recipe.optim.steps + sum(recipe.attacks[each].steps for each in earlier)
    return {f"{name}/{metric}": score.value for metric, score in scores.items()}, before + done


@contextmanager
def tracking(tracker: Tracker | None, recipe: Recipe, out: Path) -> Generator[Track]:
    """Open a tracker under the name of the run's folder; ValueError if it is not installed.

    Files are written to a folder ``tracking`` next to that of the run.
    """
    if tracker is None:
        yield untracked
        return
    need(tracker, tracker, f"`track` {tracker}")
    from accelerate import Accelerator

    folder = out.resolve().parent / "tracking"
    folder.mkdir(parents=True, exist_ok=True)
    name = {"name": out.name}
    accelerator = Accelerator(cpu=True, log_with=tracker, project_dir=str(folder))
    accelerator.init_trackers(
        out.name if tracker == "tensorboard" else "ilu",
        config={"recipe": recipe.name, "model": recipe.model, "seed": recipe.seed},
        init_kwargs={"wandb": {**name, "dir": str(folder)}, "trackio": name},
    )
    try:
        yield lambda values, step: accelerator.log(dict(values), step=step)
    finally:
        accelerator.end_training()
