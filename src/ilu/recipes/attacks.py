"""Attacks by name: one function and one row per kind."""

import itertools
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ilu.attacks.compress import Interpolate, Noise, Prune, Quantise, WeightEdit
from ilu.attacks.convergence import Convergence
from ilu.attacks.finetune import FineTune
from ilu.attacks.sequence import InTurn
from ilu.data.readers import ENDINGS
from ilu.data.splits import Part
from ilu.data.stream import Feed
from ilu.evals.metrics.likelihood import AnswerNLL
from ilu.models.load import full_name
from ilu.models.lora import Lora
from ilu.recipes import lab
from ilu.recipes.tuning import task_attack
from ilu.recipes.user_data import dataset
from ilu.runs.recipe import Recipe
from ilu.training.fit import Optim
from ilu.types import Attack, Group, Metric

HEAD = r"^(lm_head|embed_out|output)\."
"""The output layer, where it does not share its weight with the embedding."""
ASKED = 200
"""Examples that say how much of what was not shown came back."""


@dataclass(frozen=True, kw_only=True)
class Attacker:
    """What attacks have in common; ``forget``, ``retain`` and ``unrelated`` are the user's data.

    Without them relearning is the lab's. ``until`` is for tasks: of a few documents none is spared.
    """

    optim: Optim
    batch_size: int = 16
    columns: Sequence[str] = ()
    truncate: int | None = None
    forget: str | None = None
    retain: str | None = None
    unrelated: str | None = None
    original: str | None = None
    lora_rank: int = 16
    every: int | None = None
    until: Convergence | None = None
    only_end: bool = False
    seed: int = 0

    def __call__(self, name: str) -> Attack:
        """The attack called ``name``: a kind with its argument, or a task."""
        kind, _, argument = name.partition(":")
        if kind not in KINDS or name == "relearn":  # which is a task of the lab as well
            return tune(name, self)
        try:
            return KINDS[kind](argument, self)
        except ValueError as error:
            raise ValueError(f"attack {name!r}: {error}") from None

    def watched(self, attack: FineTune) -> FineTune:
        """The attack with what all share."""
        return replace(attack, seed=self.seed, every=self.every, only_end=self.only_end)


def tune(task: str, by: Attacker) -> FineTune:
    """Fine-tune all weights on a task."""
    found = task_attack(
        task,
        optim=by.optim,
        batch_size=by.batch_size,
        columns=by.columns,
        truncate=by.truncate,
        seed=by.seed,
    )
    return replace(by.watched(found), until=by.until)


def tune_lora(task: str, by: Attacker) -> FineTune:
    """Fine-tune adapters."""
    return replace(tune(task, by), lora=Lora(by.lora_rank, 2.0 * by.lora_rank))


def tune_head(task: str, by: Attacker) -> FineTune:
    """Fine-tune the output layer only, where it does not share its weight with the embedding."""
    return tune_only(HEAD, task, by)


def tune_blocks(argument: str, by: Attacker) -> FineTune:
    """Fine-tune some blocks only: ``0,1:TASK``."""
    blocks, _, task = argument.partition(":")
    if not re.fullmatch(r"\d+(,\d+)*", blocks):
        raise ValueError("name the blocks and a task, like blocks:0,1:gsm8k")
    return tune_only(rf"\.({blocks.replace(',', '|')})\.", task, by)


def tune_only(pattern: str, task: str, by: Attacker) -> FineTune:
    """Fine-tune the weights whose names match."""
    return tune(task, replace(by, optim=replace(by.optim, parameters=pattern)))


def relearn(argument: str, by: Attacker) -> FineTune:
    """Learn N documents of what was forgotten, ``N`` or ``N@LR``; the rest of them is asked for."""
    by, count = sized(argument, by)
    if by.forget is None:
        return lab_attack(lab.relearn(by.optim.steps, shown=count), by)
    whole = dataset(by.forget, by.columns, by.truncate)
    goal: dict[str, Metric] = {"others_nll": AnswerNLL(Part(whole, start=count), ASKED)}
    return replace(documents(by.forget, count, by), goals=goal)


def retained(argument: str, by: Attacker) -> FineTune:
    """Learn N documents of what was to be kept."""
    by, count = sized(argument, by)
    if by.retain is None:
        return lab_attack(lab.retained(by.optim.steps, shown=count), by)
    return documents(by.retain, count, by)


def unrelated(argument: str, by: Attacker) -> FineTune:
    """Learn N texts about something else."""
    by, count = sized(argument, by)
    if by.unrelated is None:
        return lab_attack(lab.unrelated(by.optim.steps, shown=count), by)
    return documents(by.unrelated, count, by)


def lab_attack(attack: FineTune, by: Attacker) -> FineTune:
    """An attack of the lab with the attacker's optimiser."""
    feed = Feed(attack.feed.source, min(by.batch_size, attack.feed.batch_size))
    return by.watched(replace(attack, feed=feed, optim=by.optim))


def documents(name: str, count: int, by: Attacker) -> FineTune:
    """Fine-tune all weights on the first ``count`` rows of the user's data."""
    source = Part(dataset(name, by.columns, by.truncate), stop=count)
    return by.watched(FineTune(Feed(source, min(by.batch_size, count)), by.optim))


def sized(argument: str, by: Attacker) -> tuple[Attacker, int]:
    """Read ``N`` or ``N@LR``."""
    count, _, lr = argument.partition("@")
    if not re.fullmatch(r"[1-9]\d*", count):
        raise ValueError("say how many documents, like relearn:20, or relearn:20@1e-5 with a rate")
    return replace(by, optim=replace(by.optim, lr=number(lr) if lr else by.optim.lr)), int(count)


def quantise(argument: str, by: Attacker) -> WeightEdit:
    """Round the linear layers to 8 or 4 bits; 4 bits in groups of 32 inputs, as it is done."""
    bits = number(argument)
    if bits != int(bits):
        raise ValueError(f"{bits:g} bits: write a whole number, as in quantise:4")
    return WeightEdit(Quantise(int(bits), group=32 if bits <= 4 else None))


def prune(argument: str, by: Attacker) -> WeightEdit:
    """Set a share of the linear layers to zero."""
    return WeightEdit(Prune(number(argument)))


def noise(argument: str, by: Attacker) -> WeightEdit:
    """Add noise in units of each weight's size."""
    return WeightEdit(Noise(number(argument), by.seed))


def interpolate(argument: str, by: Attacker) -> WeightEdit:
    """Go a share of the way back to the model given as the original."""
    if by.original is None:
        raise ValueError("say which model was the original: `original` MODEL")
    return WeightEdit(Interpolate(full_name(by.original), number(argument)))


def in_turn(argument: str, by: Attacker) -> InTurn:
    """Several tasks one after the other, with a plus between their names."""
    found: dict[str, Attack] = {}
    for task in argument.split("+"):
        found[unlike(label(task), found)] = tune(task, by)
    return InTurn(found)


def unlike(name: str, others: Collection[str]) -> str:
    """The name, or the first of NAME-2, NAME-3 and so on that is not among the others."""
    numbers = (f"{name}-{i}" for i in itertools.count(2))
    return next(each for each in itertools.chain([name], numbers) if each not in others)


def number(text: str) -> float:
    """A number, or a user's error."""
    with suppress(ValueError):
        if math.isfinite(found := float(text)):
            return found
    raise ValueError(f"{text!r} is no number")


KINDS: Mapping[str, Callable[[str, Attacker], Attack]] = {
    "lora": tune_lora,
    "head": tune_head,
    "blocks": tune_blocks,
    "relearn": relearn,
    "retained": retained,
    "unrelated": unrelated,
    "quantise": quantise,
    "prune": prune,
    "noise": noise,
    "interpolate": interpolate,
    "in-turn": in_turn,
}
"""Kinds of attack by name; what is none of them is a task."""


def label(name: str) -> str:
    """A name for files: of a data file its own without folder and ending."""
    kind, _, argument = name.partition(":")
    if kind in KINDS and argument:
        return f"{kind}-{label(argument)}"
    short = Path(name).stem if Path(name).suffix in ENDINGS else name.rpartition("/")[2]
    return re.sub(r"[^\w.+-]+", "-", short)


def attacked(
    model: str,
    names: Sequence[str],
    by: Attacker,
    metrics: Mapping[str, Metric | Group],
    probes: Mapping[str, Group],
    *,
    keep: bool,
    revision: str | None = None,
) -> Recipe:
    """``model`` as it is, under every attack and asked in every way."""
    attacks = {label(name): by(name) for name in dict.fromkeys(names)}
    if len(attacks) < len(set(names)):
        raise ValueError(f"two of {', '.join(names)} would be called the same: rename one")
    return Recipe(
        name=f"tune-{next(iter(attacks))}" if len(attacks) == 1 and not probes else "attacks",
        model=full_name(model),
        data={},
        objective={},
        optim=replace(by.optim, steps=0),
        metrics=metrics,
        attacks=attacks,
        probes=probes,
        revision=revision,
        keep_attacked=keep,
        seed=by.seed,
    )
