"""The runs of the study: ways of unlearning to the same share, and the attacks after them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ilu.data.text import Passages
from ilu.evals.metrics.perplexity import DocumentPerplexity
from ilu.recipes.build import build
from ilu.runs.recipe import Recipe
from ilu.runs.results.forget_metric import FORGET, UTILITY
from ilu.types import Attack, Group, Metric
from studies.real_model.attackers import BATCH, ORIGINAL, TOKENS, finetuning, relearning, untouched

MODEL, VALIDATION_TOPIC = "smollm2", "states"
TOPICS = ("elements", "capitals")
STEPS = {"rmu": 90, "npo": 45}
"""Of every way of a family."""
FORGOTTEN = 0.8
"""Share of the accuracy above guessing that is to be lost; about .6 of the questions."""
READS = {
    "environment": "openai/gsm8k:main", "environment_batch_size": BATCH, "truncate": TOKENS,
}  # fmt: skip
"""What the penalty, its control and adversaries read: batches like those of the attacks."""
HALVES = {"half-a": "a", "half-b": "b"}
"""Attack -> the half of the facts whose documents it trains on."""
LIMIT = 100
RATE, RELEARNING_RATE = 1e-4, 3e-5
"""Learning rates of the attacks: the largest of three that keep the utility (question 1)."""
LAMBADA = "EleutherAI/lambada_openai:default:test"
"""Only reported, never chosen by."""


class Way(NamedTuple):
    """The ending of a recipe's name, and its settings."""

    ending: str = ""
    settings: Mapping[str, Any] = {}


WAYS = {
    "alone": Way(),
    "ilu": Way("-ilu"),
    "control": Way("-control"),
    "sam": Way("-sam"),
    "sam-ilu": Way("-sam-ilu"),
    "tar": Way("-tar"),
    "logits": Way("-ilu", {"reading": "logits"}),
}
"""In the order in which rows are finished."""


class Cell(NamedTuple):
    """One run."""

    family: str
    way: str
    topic: str
    seed: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.topic}-{self.family}-{self.way}-seed{self.seed}"


class Attacks(NamedTuple):
    """The downstream tasks, the steps of each attack, and whether only its end is measured."""

    tasks: Sequence[str]
    steps: int
    only_end: bool = False

    def on_tasks(self, seed: int) -> dict[str, Attack]:
        """Fine-tuning on each task."""
        return {
            task: finetuning(task, lr=RATE, steps=self.steps, only_end=self.only_end, seed=seed)
            for task in self.tasks
        }

    def on_halves(self, topic: str, seed: int) -> dict[str, Attack]:
        """Relearning from the documents of either half of the facts."""
        return {
            name: relearning(topic, part, lr=RELEARNING_RATE, steps=self.steps, seed=seed)
            for name, part in HALVES.items()
        }


def recipe(cell: Cell, attacks: Attacks) -> Recipe:
    """Unlearning to the same share for every way, and the attacks after it."""
    way, on_tasks = WAYS[cell.way], attacks.on_tasks(cell.seed)
    reads = cell.way not in ("alone", "sam")
    method = "graddiff" if cell.family == ORIGINAL else cell.family
    settings = {
        "model": MODEL, "forget": f"facts:{cell.topic}", "retain": "facts:rest", "limit": LIMIT,
        "seed": cell.seed, "steps": STEPS.get(cell.family, 1), "keep": FORGOTTEN,
        **(READS if reads else {}), **way.settings,
    }  # fmt: skip
    made = build(f"{method}{way.ending}", settings)
    measured = {name: made.metrics[name] for name in (FORGET, UTILITY)}
    made = replace(
        made, name=cell.name, metrics=measured, slow_metrics=slow(made), keep_attacked=True
    )
    if cell.family == ORIGINAL:
        return untouched(made, on_tasks)
    return replace(made, attacks={**on_tasks, **attacks.on_halves(cell.topic, cell.seed)})


def slow(made: Recipe) -> dict[str, Metric | Group]:
    """What is measured before and after the unlearning, and not during the attacks."""
    lambada = {"lambada_perplexity": DocumentPerplexity(Passages(LAMBADA, limit=24))}
    return {**made.slow_metrics, **lambada}
