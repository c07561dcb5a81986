"""Headline numbers and task-vector angles of run directories, for ``summary.json``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ilu.evals.geometry.task_vectors import Angles, angles
from ilu.evals.score import mean_and_error
from ilu.models.named import model_path
from ilu.models.stored import StoredWeights
from ilu.runs.results.forget_metric import FORGET, TASK
from ilu.runs.results.run_metrics import Measured, at_stages, headline, read, tasks
from ilu.runs.run_dir import RunDir

HEADLINE = ("forgotten", "utility", "still_forgotten", "task_accuracy", "after_relearning")


def write_angles(run: RunDir, original: RunDir) -> None:
    """Compare the run's task vectors with those of the original model tuned on the same task."""
    if run.has("vectors"):
        return
    found: dict[str, Any] = {}
    for task in tasks(read(run)):
        models = {
            "original": Path(model_path(original.model)),
            "unlearned": Path(model_path(run.model)),
            "finetuned": attacked(run, task),
            "tuned_original": attacked(original, task),
        }
        found[task] = angles({k: StoredWeights(v) for k, v in models.items()})._asdict()
    run.write("vectors", found)


def attacked(run: RunDir, task: str) -> Path:
    """Folder of the weights after an attack."""
    return run.path / "attacks" / task / "model"


def forgotten_share(run: RunDir, stage: str, metric: str = FORGET) -> float:
    """1 - accuracy on the forget questions."""
    return 1 - run.scores(stage)[metric].value


def model_summary(run: RunDir) -> dict[str, Any]:
    """One model of ``summary.json``; a headline number that was not measured is None."""
    m = read(run)
    scores = headline(m)
    return {
        **{key: None if (score := scores[key]) is None else score.value for key in HEADLINE},
        "tasks": {task: task_summary(m, task) for task in tasks(m)},
        "seconds": m.records["done"]["seconds"],
    }


def task_summary(m: Measured, task: str) -> dict[str, Any]:
    """``forgotten`` during one downstream fine-tuning, its task accuracy, and three cosines."""
    none = Angles(None, None, None)._asdict()
    return {
        "forgotten": [s.value for s in at_stages(m, task).values()],
        "task_accuracy": m.stages[f"{task}-end"][TASK].value,
        "cosines": m.records.get("vectors", {}).get(task, none),
    }


def summarise(runs: Sequence[RunDir], *, chance: float) -> Mapping[str, Any]:
    """``summary.json`` of several runs of the same seed."""
    return {
        "schema": 2,
        "models": {run.name: model_summary(run) for run in runs},
        "seed": runs[0].read("recipe")["seed"],
        "chance": chance,
    }


def over_seeds(runs: Sequence[RunDir]) -> list[dict[str, Any]]:
    """One row per recipe: mean and standard error over its runs of every number of the summary."""
    grouped: dict[str, list[dict[str, float]]] = {}
    for run in runs:
        grouped.setdefault(run.name, []).append(run_numbers(run))
    return [
        {"recipe": name, "seeds": len(found)}
        | {key: mean_and_error([each[key] for each in found]) for key in found[0]}
        for name, found in grouped.items()
    ]


def run_numbers(run: RunDir) -> dict[str, float]:
    """The numbers of one run that can be averaged, with the cost of the unlearning."""
    cost, summary = run.read("cost"), model_summary(run)
    costs = {
        "unlearn_seconds": cost["seconds"],
        "peak_memory_mib": cost["peak_memory_bytes"] / 2**20,
    }
    return {k: v for k, v in summary.items() if isinstance(v, float)} | costs
