"""Relearning from a few documents, and two controls without any forgotten content."""

import re
from collections.abc import Mapping
from dataclasses import replace

from ilu.attacks.finetune import FineTune
from ilu.attacks.kind import AttackInputs, AttackKind, DataRole, number


def relearn(argument: str, inputs: AttackInputs) -> FineTune:
    """Fine-tune on N documents of the forget set, ``N`` or ``N@LR``; the goal is the rest of it."""
    return sized(argument, "forget", inputs)


def retained(argument: str, inputs: AttackInputs) -> FineTune:
    """Fine-tune on N documents of the retain set."""
    return sized(argument, "retain", inputs)


def unrelated(argument: str, inputs: AttackInputs) -> FineTune:
    """Fine-tune on N texts about another topic."""
    return sized(argument, "unrelated", inputs)


def sized(argument: str, role: DataRole, inputs: AttackInputs) -> FineTune:
    """Fine-tuning on N documents, for ``N@LR`` at the learning rate LR."""
    count, _, lr = argument.partition("@")
    if not re.fullmatch(r"[1-9]\d*", count):
        raise ValueError(
            "give a number of documents, as in relearn:20, or with a learning rate, as in "
            "relearn:20@1e-5"
        )
    rate = number(lr) if lr else None
    return at_rate(inputs.documents(role, int(count)), rate)


def at_rate(attack: FineTune, rate: float | None) -> FineTune:
    """The attack at a learning rate of its own; None keeps that of the attacker."""
    return attack if rate is None else replace(attack, optim=replace(attack.optim, lr=rate))


ATTACKS: Mapping[str, AttackKind] = {
    "relearn": AttackKind(relearn, example="20", needs="forget"),
    "retained": AttackKind(retained, example="20", needs="retain"),
    "unrelated": AttackKind(unrelated, example="20", needs="unrelated"),
}
