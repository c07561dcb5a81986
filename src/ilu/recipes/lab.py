"""Recipes on the lab: its data, metrics, attacks and default settings."""

from collections.abc import Sequence
from typing import Any, Literal

from ilu.attacks.finetune import FineTune
from ilu.data.splits import PartOfQuestions
from ilu.data.stream import Feed
from ilu.evals.metrics.multiple_choice import Choice
from ilu.lab.sources import Corpus, Documents, Facts, Stories, TaskTest, TaskTrain
from ilu.lab.tasks import TASKS, VALIDATION
from ilu.lab.world import AGENTS
from ilu.methods.ending import Ending
from ilu.methods.method import Method
from ilu.methods.stage import Stage
from ilu.runs.results.forget_metric import OTHERS
from ilu.training.fit import Optim
from ilu.types import Attack, Metric, Source

USUAL: dict[str, Any] = {"lr": 3e-4, "steps": 100, "batch_size": 16}
"""Settings of most methods on the lab's model.

Each method's file has the settings that differ. docs/log explains how they were chosen, and
results/lab_methods.json has all trials.
"""


SAVED = {"save_dtype": "float32"}
"""The lab's model is in float16 only to keep the package small; its results are in float32."""


def settings(
    method: Method, ending: Ending | None, environment: str | None, stage: Stage | None = None
) -> dict[str, Any]:
    """Settings of a recipe on the lab's model."""
    known = method.lab_ilu
    penalty = {
        None: {},
        "ilu": known or {"strength": 1.0},
        # The same number of steps as with the penalty. The strength differs: a likelihood has
        # another scale than its square.
        "control": {"strength": 1.0, **{k: v for k, v in known.items() if k == "steps"}},
    }[environment]
    added = {**(ending.lab if ending else {}), **penalty, **(stage.lab if stage else {})}
    return {**USUAL, **SAVED, **method.lab, **added}


LabHalf = Literal["a", "b"]
TEXTS = 4
"""Number of documents about each entity."""
SHOWN = 20
"""Entities whose documents a relearning attack trains on; forgetting is measured on the others."""


TASK_NAMES = (*(task.name for task in TASKS), VALIDATION.name)
"""Downstream tasks whose data the package makes, for any model."""


def task_source(name: str, columns: Sequence[str], setting: str) -> Source:
    """The training text of a downstream task; ``setting`` is what ``columns`` are called."""
    if columns:
        raise ValueError(f"the task {name} has fixed columns: leave `{setting}` out")
    return TaskTrain(name)


def data(batch_size: int, environment_batch_size: int) -> dict[str, Feed]:
    """The lab's data: forget agents, retain people, and sums as the environment."""
    return {
        "forget": Feed(Documents("agents"), batch_size, "forget"),
        "retain": Feed(Documents("people"), batch_size, "retain"),
        "environment": Feed(TaskTrain("sums"), environment_batch_size, "environment"),
    }


def general_text(batch_size: int) -> Feed:
    """The corpus on which the lab's model was pretrained, without what is to be forgotten."""
    return Feed(Corpus("agents"), batch_size)


def metrics(questions: int | None = None) -> dict[str, Metric]:
    """The metrics of every stage. Forgetting is 1 minus ``forget_accuracy``."""
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
    """Fine-tuning on a downstream task that is unrelated to the forget set."""
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
    """Fine-tuning on documents of a few forgotten entities; the goal is about the other entities.

    The questions are about the same entities for every number ``shown``, and never about those
    shown.
    """
    if not 1 <= shown <= SHOWN:
        raise ValueError(f"relearning from {shown} entities: the lab has from 1 to {SHOWN}")
    others = Choice(Facts("agents", start=SHOWN, count=questions))
    source = Documents("agents", stop=shown)
    return FineTune(documents(source, shown), tuning(steps, lr), {OTHERS: others}, seed)


def relearn_half(half: LabHalf, steps: int, lr: float = 1e-3) -> FineTune:
    """Fine-tuning on the documents of half of the agents; the goal is about the other half."""
    questions, middle = Facts("agents"), AGENTS.count // 2
    first = PartOfQuestions(questions, stop=middle * len(AGENTS.attributes))
    source, other = {
        "a": (Documents("agents", stop=middle), Facts("agents", start=middle)),
        "b": (Documents("agents", start=middle), first),
    }[half]
    goal: dict[str, Metric] = {OTHERS: Choice(other)}
    return FineTune(documents(source, middle), tuning(steps, lr), goal)


def retained(steps: int, seed: int = 0, *, shown: int = SHOWN, lr: float = 1e-3) -> FineTune:
    """Fine-tuning on documents of the retain set."""
    source = Documents("people", stop=shown)
    return FineTune(documents(source, shown), tuning(steps, lr), seed=seed)


def unrelated(steps: int, seed: int = 0, *, shown: int = SHOWN, lr: float = 1e-3) -> FineTune:
    """Fine-tuning on unrelated stories; as many texts as ``shown`` entities have."""
    source = Stories(TEXTS * shown)
    return FineTune(documents(source, shown), tuning(steps, lr), seed=seed)


def documents(source: Source, entities: int) -> Feed:
    """Texts about ``entities`` entities, in batches of at most 16."""
    return Feed(source, min(16, TEXTS * entities))


def tuning(steps: int, lr: float = 1e-3) -> Optim:
    """AdamW on all weights, as is usual for a model of this size."""
    return Optim(lr=lr, steps=steps)
