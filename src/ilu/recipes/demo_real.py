"""The recipes of ``ilu demo --model smollm2``: a real model forgets chemical symbols."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ilu.attacks.finetune import FineTune
from ilu.data.hub import local_rows
from ilu.evals.metrics.final_number import FinalNumber
from ilu.models.named import SMOLLM2
from ilu.recipes.build import build
from ilu.recipes.halves import half_attack
from ilu.recipes.settings import AttackSettings
from ilu.recipes.task_attack import task_attack
from ilu.runs.recipe import Recipe
from ilu.runs.results.forget_metric import FORGET, UTILITY
from ilu.training.fit import Optim

NAMES = ("npo", "npo-ilu", "rmu", "rmu-ilu")
TOPIC = "facts:elements"
HUB, OWN = ("gsm8k", "sst2"), ("sums", "mood")
"""Downstream tasks: of the hub where its mirror is on this machine, else of the lab."""
DATA = ("openai/gsm8k:main", "stanfordnlp/sst2")
"""The data of the tasks of the hub."""
TOKENS = 96
"""Examples of tasks of the hub are cut to this length, for the attacks and for the penalty."""
TASK_RATE, HALF_RATE = 1e-4, 3e-5
"""Learning rates of fine-tuning and relearning: the largest that kept the utility (see the log)."""


@dataclass(frozen=True)
class Size:
    """How long the demo is.

    ``unlearn``: steps of the unlearning; None for the defaults. ``attack``: steps of each attack.
    ``batch``: examples of each of its steps. ``texts``: measure before and after the unlearning
    losses and what the models write.
    """

    unlearn: int | None
    attack: int
    questions: int
    batch: int
    texts: bool


FULL = Size(unlearn=None, attack=30, questions=80, batch=4, texts=True)
QUICK = Size(unlearn=2, attack=2, questions=12, batch=2, texts=False)


def recipes(seed: int, size: Size) -> list[Recipe]:
    """The original first, because the report compares the others with it."""
    names = tasks()
    planned = [unlearned(name, seed, size, names) for name in NAMES]
    nothing = Optim(lr=1e-3, steps=0)
    first = replace(planned[0], name="original", objective={}, data={}, optim=nothing, passes=None)
    return [first, *planned]


def tasks() -> tuple[str, ...]:
    """The tasks of the hub if all their data is on this machine, else those of the lab."""
    try:
        there = all(local_rows(name) for name in DATA)
    except (OSError, ValueError):
        there = False
    return HUB if there else OWN


def unlearned(name: str, seed: int, size: Size, names: tuple[str, ...]) -> Recipe:
    """A recipe with its defaults for this model; the penalty sees the first of the tasks."""
    steps = {} if size.unlearn is None else {"steps": size.unlearn}
    read = {
        "environment": names[0], "environment_batch_size": size.batch, "truncate": longest(names),
    }  # fmt: skip
    environment = read if name.endswith("-ilu") else {}
    settings = {
        "model": SMOLLM2, "forget": TOPIC, "retain": "facts:rest", "limit": size.questions,
        "seed": seed, **environment, **steps,
    }  # fmt: skip
    made = build(name, settings)
    answers = {n: m for n, m in made.metrics.items() if n in (FORGET, UTILITY)}
    others = {n: m for n, m in made.all_metrics.items() if n not in answers}
    slow = others if size.texts else {}
    planned = attacks(names, size, seed)
    return replace(made, metrics=answers, slow_metrics=slow, attacks=planned)


def longest(names: tuple[str, ...]) -> int | None:
    """Tokens to which examples of the tasks are cut."""
    return TOKENS if names == HUB else None


def attacks(names: tuple[str, ...], size: Size, seed: int) -> Mapping[str, FineTune]:
    """Fine-tuning on each task, and on the documents of half of the facts to ask about the rest."""
    made = {
        task: task_attack(
            task,
            optim=Optim(lr=TASK_RATE, steps=size.attack),
            batch_size=size.batch,
            columns=(),
            truncate=longest(names),
            seed=seed,
        )
        for task in names
    }
    relearning = AttackSettings(forget=TOPIC, batch_size=4 * size.batch, seed=seed)
    made["relearn-half"] = half_attack("a", relearning, Optim(lr=HALF_RATE, steps=size.attack))
    quick = {name: without_long_replies(each) for name, each in made.items()}
    return {name: replace(each, only_end=True, seed=seed) for name, each in quick.items()}


def without_long_replies(attack: FineTune) -> FineTune:
    """The attack without its goal where that generates hundreds of tokens, as of GSM8K."""
    goals = {n: g for n, g in attack.goals.items() if not isinstance(g, FinalNumber)}
    return replace(attack, goals=goals)
