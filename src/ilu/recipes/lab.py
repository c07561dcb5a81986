"""Recipes on the lab: its data, its metrics, its attacks, and settings that suit its model."""

from typing import Any

from ilu.attacks.finetune import FineTune
from ilu.data.stream import Feed
from ilu.evals.metrics.multiple_choice import Choice
from ilu.lab.sources import Documents, Facts, Stories, TaskTest, TaskTrain
from ilu.lab.tasks import TASKS
from ilu.runs.results.forget_metric import OTHERS
from ilu.training.fit import Optim
from ilu.types import Attack, Metric, Source

RMU: dict[str, Any] = {
    "lr": 1e-3, "steps": 300, "batch_size": 16, "layer": 3, "coefficient": 150.0, "alpha": 5.0,
}  # fmt: skip
NPO: dict[str, Any] = {"lr": 3e-4, "steps": 100, "batch_size": 16, "beta": 0.01}
USUAL: dict[str, Any] = {"lr": 3e-4, "steps": 100, "batch_size": 16}
SETTINGS: dict[str, dict[str, Any]] = {
    "rmu": RMU,
    "npo": NPO,
    "graddiff": {"lr": 0.0003, "gamma": 3.0, "steps": 60},
    "kl": {"lr": 0.0003, "gamma": 3.0, "steps": 60},
    "divergence": {"lr": 0.0003, "gamma": 1.0, "steps": 60},
    "token-npo": {"lr": 0.0003, "beta": 0.5, "steps": 100},
    "simnpo": {"lr": 0.001, "beta": 0.5, "forget_weight": 1.0},
    "dpo": {"lr": 0.0003, "beta": 0.01},
    "po": {"lr": 0.003, "steps": 200},
    "jensun": {"lr": 0.0003, "gamma": 0.1, "steps": 100},
    "random-labels": {"lr": 0.0003, "gamma": 0.1, "steps": 100},
    "undial": {"lr": 0.001, "beta": 30.0, "gamma": 0.3, "steps": 200},
    "ascent": {"lr": 0.0003, "steps": 10},
    "wga": {"lr": 0.001, "gamma": 0.5, "steps": 100},
    "satimp": {"lr": 0.001, "saturation": 1.0, "forget_weight": 3.0, "steps": 100},
    "ceu": {"lr": 0.001, "gamma": 0.03, "steps": 100},
    "pdu": {"lr": 0.0003, "limit": 1.0, "dual_rate": 1.0, "gamma": 1.0},
    "entropy": {"lr": 0.001, "gamma": 1.0},
    "adaptive-rmu": {"lr": 0.001, "layer": 3, "scale": 3.0, "alpha": 2.0, "steps": 300},
    "circuit-breakers": {"lr": 0.001, "layers": (2, 4), "ramp": 200, "steps": 150},
    "elm": {"lr": 0.001, "eta": 1000.0, "gamma": 0.3, "steps": 250},
    "repnoise": {"lr": 0.0003, "layer": 3, "alpha": 4.0, "beta": 1.0},
    "task-vector": {"lr": 0.001, "alpha": 2.0, "steps": 50},
    "whp": {"lr": 0.001, "gamma": 1.0, "alpha": 5.0, "reinforce_lr": 0.001},
    "finetune": {"lr": 0.003, "steps": 200},
    "l1-sparse": {"lr": 0.001, "steps": 200, "l1": 3e-06},
}
"""Settings that differ from the published ones, which are for models of 7B. docs/log.md says how
they were chosen, results/lab_methods.json has what was tried."""
ILU: dict[str, dict[str, Any]] = {
    "rmu": {"strength": 300.0, "scale_free": False, "steps": 600},
    "npo": {"strength": 1e-3, "scale_free": False, "steps": 130},
}
"""What the invariance penalty asks for beside them."""
ROBUST: dict[str, dict[str, Any]] = {
    "sam": {"rho": 0.05},
    "rs": {"sigma": 1e-4},
    "gp": {"penalty": 0.1},
    "cr": {"penalty": 1.0},
    "lat": {"attack_layer": 2, "epsilon": 0.5, "attack_steps": 4, "attack_lr": 0.5},
    "tar": {"inner_steps": 8, "inner_every": 4, "inner_lr": 3e-4, "inner_scale": 0.3},
    "mudman": {"adversary_steps": 2, "adversary_lr": 3e-4},
    "ahead": {"ahead": 3e-3, "environment_batch_size": 16},
}
"""What robust training asks for beside them; chosen with npo."""


def settings(method: str, robust: str | None, environment: str | None) -> dict[str, Any]:
    """Settings of a recipe on the lab's model, by the parts of its name."""
    known = ILU.get(method, {})
    beside = {
        None: {},
        "ilu": known or {"strength": 1.0},
        # As long as with the penalty, but a likelihood has another scale than its square.
        "control": {"strength": 1.0, **{k: v for k, v in known.items() if k == "steps"}},
    }[environment]
    return {**USUAL, **SETTINGS.get(method, {}), **ROBUST.get(robust or "", {}), **beside}


TEXTS = 4
"""Documents about each entity."""
SHOWN = 20
"""Entities whose documents a relearning attack gets; forget quality is measured on the others."""


def data(batch_size: int, environment_batch_size: int) -> dict[str, Feed]:
    """Forget agents, keep people, be invariant to learning sums."""
    return {
        "forget": Feed(Documents("agents"), batch_size),
        "retain": Feed(Documents("people"), batch_size),
        "environment": Feed(TaskTrain("sums"), environment_batch_size),
    }


def metrics(questions: int | None = None) -> dict[str, Metric]:
    """What every stage is measured by; forget quality is 1 minus the first."""
    return {
        "forget_accuracy": Choice(Facts("agents", count=questions)),
        "utility": Choice(Facts("people", count=questions)),
    }


def attacks(
    steps: int, relearn_steps: int, questions: int | None = None, seed: int = 0
) -> dict[str, Attack]:
    """Six downstream fine-tunings, and relearning from the documents of a few entities."""
    return {
        **{task.name: finetune(task.name, steps, seed) for task in TASKS},
        "relearn": relearn(relearn_steps, questions, seed),
    }


def finetune(task: str, steps: int, seed: int = 0) -> FineTune:
    """Learn a downstream task that has nothing to do with what was forgotten."""
    goals: dict[str, Metric] = {"task_accuracy": Choice(TaskTest(task))}
    return FineTune(Feed(TaskTrain(task), 32), tuning(steps), goals, seed)


def relearn(
    steps: int,
    questions: int | None = None,
    seed: int = 0,
    *,
    shown: int = SHOWN,
    lr: float = 1e-3,
) -> FineTune:
    """Learn the documents of a few forgotten entities; forget quality is that of others.

    Whatever the number ``shown``, the questions are about the same entities: none of them.
    """
    if not 1 <= shown <= SHOWN:
        raise ValueError(f"relearning from {shown} entities: the lab has from 1 to {SHOWN}")
    others = Choice(Facts("agents", start=SHOWN, count=questions))
    source = Documents("agents", stop=shown)
    return FineTune(documents(source, shown), tuning(steps, lr), {OTHERS: others}, seed)


def retained(steps: int, seed: int = 0, *, shown: int = SHOWN, lr: float = 1e-3) -> FineTune:
    """Learn again what was to be kept."""
    source = Documents("people", stop=shown)
    return FineTune(documents(source, shown), tuning(steps, lr), seed=seed)


def unrelated(steps: int, seed: int = 0, *, shown: int = SHOWN, lr: float = 1e-3) -> FineTune:
    """Learn new stories about nobody; as many texts as ``shown`` entities have."""
    source = Stories(TEXTS * shown)
    return FineTune(documents(source, shown), tuning(steps, lr), seed=seed)


def documents(source: Source, entities: int) -> Feed:
    """Texts about so many entities in batches of 16, or of all where there are fewer."""
    return Feed(source, min(16, TEXTS * entities))


def tuning(steps: int, lr: float = 1e-3) -> Optim:
    """Full-weight AdamW, as someone would fine-tune a model of this size."""
    return Optim(lr=lr, steps=steps)
