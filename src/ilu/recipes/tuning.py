"""A model as it is, attacked by fine-tuning on one task."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ilu.attacks.finetune import FineTune
from ilu.data import Feed
from ilu.evals.likelihood import AnswerNLL
from ilu.lab.tasks import TASKS
from ilu.recipe import Recipe
from ilu.recipes import lab
from ilu.recipes.own import dataset
from ilu.sources.files import ENDINGS
from ilu.train import Optim
from ilu.types import Metric

KNOWN = {"gsm8k": "openai/gsm8k:main:train"}
"""Short names of hub datasets."""


def tuned(
    model: str,
    task: str,
    *,
    task_columns: Sequence[str],
    truncate: int | None,
    metrics: Mapping[str, Metric],
    steps: int,
    lr: float,
    batch_size: int,
    seed: int,
) -> Recipe:
    """Fine-tune ``model`` on ``task`` and keep the weights, measuring ``metrics`` on the way."""
    check_task(task)
    optim = Optim(lr=lr, steps=steps)
    attack = lab_attack(task, steps, batch_size, seed) or FineTune(
        Feed(dataset(KNOWN.get(task, task), task_columns, truncate), batch_size), optim, seed=seed
    )
    feed = attack.feed
    goals = attack.goals or {"task_nll": AnswerNLL(feed.source, limit=200)}
    label = task if task.isidentifier() else Path(task.replace(":", "-")).stem
    return Recipe(
        name=f"tune-{label}",
        model=str(Path(model).resolve()) if Path(model).is_dir() else model,
        data={},
        objective={},
        optim=replace(optim, steps=0),
        metrics=metrics,
        attacks={label: replace(attack, optim=optim, goals=goals)},
        keep_attacked=True,
        seed=seed,
    )


def check_task(task: str) -> None:
    """Refuse what is neither a known name nor looks like data."""
    names = [*KNOWN, *(t.name for t in TASKS), "relearn"]
    if task not in names and "/" not in task and Path(task).suffix not in ENDINGS:
        near = difflib.get_close_matches(task, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"unknown task {task!r}{hint} Tasks: {', '.join(names)}, a file ending in "
            f"{', '.join(ENDINGS)}, or a hub dataset ORG/NAME:CONFIG:SPLIT"
        )


def lab_attack(task: str, steps: int, batch_size: int, seed: int) -> FineTune | None:
    """The lab's attack of that name, if there is one."""
    if task == "relearn":
        found = lab.relearn(steps, seed=seed)
    elif task in {t.name for t in TASKS}:
        found = lab.finetune(task, steps, seed)
    else:
        return None
    return replace(found, feed=Feed(found.feed.source, batch_size))
