"""The numbers of the ILU paper from run directories: FQ, RA, FA, relearning, task-vector angles."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ilu.models import StoredWeights
from ilu.rundir import RunDir
from ilu.scores import mean_score
from ilu.types import STAGES
from ilu.vectors import Angles, angles

FORGET = "forget_accuracy"
UTILITY = "utility"
TASK = "task_accuracy"
OTHERS = "others_accuracy"
"""Of a relearning attack: accuracy on what it does not show."""


def downstream(run: RunDir) -> list[str]:
    """Attacks of a run that are downstream tasks: those that measure their own accuracy."""
    attacks = run.read("recipe")["attacks"]
    return [a for a in attacks if TASK in run.scores(f"{a}-end")]


def write_angles(run: RunDir, original: RunDir) -> None:
    """Compare the run's task vectors with those of the original model tuned on the same task."""
    if run.has("vectors"):
        return
    found: dict[str, Any] = {}
    for task in downstream(run):
        models = {
            "original": original.path / "model",
            "unlearned": run.path / "model",
            "finetuned": attacked(run, task),
            "tuned_original": attacked(original, task),
        }
        found[task] = angles({k: StoredWeights(v) for k, v in models.items()})._asdict()
    run.write("vectors", found)


def attacked(run: RunDir, task: str) -> Path:
    """Folder of the weights after an attack."""
    return run.path / "attacks" / task / "model"


def forget_quality(run: RunDir, stage: str, metric: str = FORGET) -> float:
    """1 minus the accuracy on the forget questions."""
    return 1 - run.scores(stage)[metric].value


def model_summary(run: RunDir) -> dict[str, Any]:
    """One model of ``summary.json``."""
    tasks = {task: task_summary(run, task) for task in downstream(run)}
    qualities = [mean(t["forget_quality"]) for t in tasks.values()]
    return {
        "forget_quality": forget_quality(run, "after"),
        "utility": run.scores("after")[UTILITY].value,
        "robust_accuracy": mean(qualities),
        "finetune_accuracy": mean([t["finetune_accuracy"] for t in tasks.values()]),
        "relearn_forget_quality": forget_quality(run, "relearn-end", OTHERS),
        "tasks": tasks,
        "seconds": run.read("done")["seconds"],
    }


def task_summary(run: RunDir, task: str) -> dict[str, Any]:
    """Forget quality along one downstream fine-tuning, its own accuracy, and the three cosines."""
    none = Angles(None, None, None)._asdict()
    return {
        "forget_quality": [forget_quality(run, f"{task}-{stage}") for stage in STAGES],
        "finetune_accuracy": run.scores(f"{task}-end")[TASK].value,
        "cosines": run.read("vectors").get(task, none) if run.has("vectors") else none,
    }


def summarise(runs: Sequence[RunDir], *, chance: float) -> Mapping[str, Any]:
    """``summary.json`` of several runs of the same seed."""
    return {
        "schema": 1,
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
    """The numbers of one run that can be averaged, with what the unlearning cost."""
    cost, summary = run.read("cost"), model_summary(run)
    costs = {
        "unlearn_seconds": cost["seconds"],
        "peak_memory_mib": cost["peak_memory_bytes"] / 2**20,
    }
    return {k: v for k, v in summary.items() if isinstance(v, float)} | costs


def mean_and_error(values: Sequence[float]) -> dict[str, float]:
    """Mean, and its standard error: 0 for a single value."""
    score = mean_score(values)
    return {"mean": score.value, "stderr": score.stderr}


def mean(values: Sequence[float]) -> float:
    """Mean of at least one value."""
    return sum(values) / len(values)
