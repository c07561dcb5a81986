"""Every attack on the weights of the lab's model, and the runs that compare methods by them."""

from dataclasses import replace
from pathlib import Path

from ilu.attacks.finetune import FineTune
from ilu.attacks.interpolate import Interpolate
from ilu.attacks.layers import HEAD
from ilu.attacks.noise import Noise
from ilu.attacks.prune import Prune
from ilu.attacks.quantise import Quantise
from ilu.attacks.sequence import InTurn
from ilu.attacks.weight_edit import WeightEdit
from ilu.lab.tasks import TASKS
from ilu.models.lora import Lora
from ilu.models.named import LAB, NEVER
from ilu.recipes import lab, probes
from ilu.recipes.demo import Size, original, unlearned
from ilu.recipes.suite_request import SuiteRequest
from ilu.runs.recipe import Recipe
from ilu.types import Attack

FULL = Size(unlearn=1.0, tune=60, relearn=30, questions=240)
"""Shorter than in the demo: knowledge returns in the first steps, and there are 57 cells."""
QUICK = Size(unlearn=0.02, tune=2, relearn=2, questions=12)
METHODS = ("rmu", "npo", "simnpo", "graddiff")
ENDINGS = ("", "-ilu", "-sam", "-control")
ORIGINAL, NEVER_KNEW = "original", "never-knew"
NAMES = (
    ORIGINAL,
    NEVER_KNEW,
    *(f"{method}{ending}" for method in METHODS for ending in ENDINGS),
    "rmu-lookahead",
)
"""Each method alone, with the penalty, with SAM, and with the environment's likelihood in place of
the penalty. First the original model and one that was never trained on the forget set, last the
most robust variant of results/ilu_vs_baselines.md."""
SHOWN = (1, 5, 20)
RATES = (1e-4, 3e-4, 1e-3)
"""Relearning restores most after NPO at the middle one (results/attacks_npo_seed0.json)."""
PART = "sums"
"""The task of partial fine-tuning: the model has most to learn from it."""
BLOCKS = r"\.(4|5)\."
"""The last third of the blocks."""


PROBE_QUESTIONS = 100
"""Questions of each attack that leaves the weights alone, in a run of full size."""


def every(size: Size, seed: int) -> dict[str, Attack]:
    """All attacks that edit weights: whole and partial fine-tuning, relearning, compression."""
    return {
        **{task.name: lab.finetune(task.name, size.tune, seed) for task in TASKS},
        **partial(size.tune, seed),
        **relearning(size, seed),
        **at_once(seed),
    }


def partial(steps: int, seed: int) -> dict[str, Attack]:
    """One task by adapters, by the head, by the last blocks, and three tasks one after another.

    Their accuracies have names of their own: `still_forgotten` is over the full fine-tunings.
    """
    found = lab.finetune(PART, steps, seed)
    whole = replace(found, goals={f"{PART}_{goal}": m for goal, m in found.goals.items()})
    return {
        f"{PART}-lora": replace(whole, lora=Lora(16, 32.0)),
        f"{PART}-head": only(whole, HEAD),
        f"{PART}-blocks": only(whole, BLOCKS),
        "in-turn": InTurn({t: lab.finetune(t, steps, seed) for t in (PART, "entail", "same")}),
    }


def only(attack: FineTune, pattern: str) -> FineTune:
    """The same on the weights whose names match."""
    return replace(attack, optim=replace(attack.optim, parameters=pattern))


def relearning(size: Size, seed: int) -> dict[str, Attack]:
    """Documents of a few forgotten entities over a grid, and two controls without forgotten facts.

    The strongest attacker of the grid is the one that counts.
    """
    steps, asked = size.relearn, size.questions
    grid: dict[str, Attack] = {
        f"relearn-{n}-{lr:g}": lab.relearn(steps, asked, seed, shown=n, lr=lr)
        for n in SHOWN
        for lr in RATES
    }
    return {
        **grid,
        "retained": lab.retained(steps, seed),
        "unrelated": lab.unrelated(steps, seed),
    }


def at_once(seed: int) -> dict[str, Attack]:
    """Changes of the weights that need no data."""
    changes = {
        "quantise-8": Quantise(8),
        "quantise-4": Quantise(4, 32),
        "prune-0.3": Prune(0.3),
        "prune-0.5": Prune(0.5),
        "noise-0.05": Noise(0.05, seed),
        "noise-0.1": Noise(0.1, seed),
        "interpolate-0.25": Interpolate(LAB, 0.25),
        "interpolate-0.5": Interpolate(LAB, 0.5),
    }
    return {name: WeightEdit(change) for name, change in changes.items()}


def jobs(names: tuple[str, ...], seeds: int, size: Size, out: Path) -> dict[Path, Recipe]:
    """A folder for every name and seed, and what to do there: all names of a seed first."""
    return {
        out / f"{name}-seed{seed}": cell(name, seed, size)
        for seed in range(seeds)
        for name in names
    }


def cell(name: str, seed: int, size: Size) -> Recipe:
    """One model under every attack; the weights after the attacks are not kept."""
    if name == ORIGINAL:
        made = original(seed, size)
    elif name == NEVER_KNEW:
        made = replace(original(seed, size), name=NEVER_KNEW, model=NEVER)
    else:
        made = unlearned(name, seed, size)
    asked = SuiteRequest(limit=size.questions or PROBE_QUESTIONS)
    attacks, probing = every(size, seed), probes.probes(asked, seed=seed)
    return replace(made, attacks=attacks, probes=probing, keep_attacked=False)
