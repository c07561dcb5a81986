"""``ilu attack``: what comes back when a model is fine-tuned."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from ilu.cli.parse import Positional, parse
from ilu.cli.show import console, number, table
from ilu.cli.unlearn import Place
from ilu.recipes.asked import Asked
from ilu.recipes.measure import SuiteName, suite_of
from ilu.recipes.tuning import task_attack, tuned
from ilu.rundir import RunDir
from ilu.train import Optim


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Fine-tune a model on a task and measure what comes back on the way.

    Example: ilu attack runs/first/model --task mood --suite lab --lr 1e-3 --out runs/mood

    Example: ilu attack ./unlearned --task gsm8k --suite likelihood --data forget.jsonl --out runs/g

    Args:
        model: folder, hub id, or lab.
        task: gsm8k, ag_news, sst2, winogrande, mnli, qqp, a task of the lab (sums, topics, mood,
            owner, entail, same), relearn (the lab's), or a file or hub dataset.
        task_columns: names of columns that differ in the task, as wanted=present.
        suite: what is measured before, at a quarter, at half and at the end, beside the task; see
            ilu evaluate --help.
        split: of the suites tofu and muse.
        data: file or hub dataset for the suites choice, likelihood and verbatim.
        columns: names of columns that differ in the data, as wanted=present.
        truncate: cut longer examples to this many tokens.
        limit: measure on the first so many items.
        steps: optimiser steps of the attacker.
        lr: learning rate of the attacker.
        batch_size: examples per step of the attacker.
        seed: of the attacker's order of data.
    """

    model: Positional[str]
    task: str
    task_columns: tuple[str, ...] = ()
    suite: SuiteName = "likelihood"
    split: str | None = None
    data: str | None = None
    columns: tuple[str, ...] = ()
    truncate: int | None = None
    limit: int | None = 200
    steps: int = 100
    lr: float = 1e-5
    batch_size: int = 16
    seed: int = 0
    place: Annotated[Place, tyro.conf.arg(name="")]


def attack(argv: Sequence[str]) -> None:
    """Carry out ``ilu attack``."""
    wanted: Attack = parse(Attack, "ilu attack", argv)
    metrics = {}
    if wanted.suite != "likelihood" or wanted.data:
        asked = Asked(
            data=wanted.data,
            columns=wanted.columns,
            truncate=wanted.truncate,
            limit=wanted.limit,
            split=wanted.split,
        )
        metrics = {wanted.suite: suite_of(wanted.suite, asked)}
    task = task_attack(
        wanted.task,
        optim=Optim(lr=wanted.lr, steps=wanted.steps),
        batch_size=wanted.batch_size,
        columns=wanted.task_columns,
        truncate=wanted.truncate,
        seed=wanted.seed,
    )
    recipe = tuned(wanted.model, wanted.task, task, metrics, seed=wanted.seed)
    out = wanted.place.run(recipe)
    show_stages(out)


def show_stages(out: RunDir) -> None:
    """Every metric at every stage; ``after`` is left out where nothing was unlearned."""
    unchanged = not out.read("recipe")["objective"]
    stages = [s for s in out.stages() if not (unchanged and s == "after")]
    metrics = dict.fromkeys(m for stage in stages for m in out.scores(stage))
    cells = {stage: out.scores(stage) for stage in stages}
    rows = [
        (m, *(number(cells[s][m].value if m in cells[s] else None) for s in stages))
        for m in metrics
    ]
    table(out.name, ("metric", *stages), rows)
    console.print(f"run: {out.path}", markup=False, soft_wrap=True)
