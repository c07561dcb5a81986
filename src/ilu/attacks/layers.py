"""Fine-tuning of some weights only: adapters, the output layer, some blocks."""

import re
from collections.abc import Mapping
from dataclasses import replace

from ilu.attacks.finetune import FineTune
from ilu.attacks.kind import AttackInputs, AttackKind
from ilu.models.lora import Lora

HEAD = r"^(lm_head|embed_out|output)\."
"""The output layer, where it does not share its weight with the embedding."""


def lora(argument: str, inputs: AttackInputs) -> FineTune:
    """Fine-tune adapters."""
    return replace(inputs.task(argument), lora=Lora(inputs.lora_rank, 2.0 * inputs.lora_rank))


def head(argument: str, inputs: AttackInputs) -> FineTune:
    """Fine-tune the output layer only, where it does not share its weight with the embedding."""
    return only(HEAD, inputs.task(argument))


def blocks(argument: str, inputs: AttackInputs) -> FineTune:
    """Fine-tune some blocks only: ``0,1:TASK``."""
    numbers, _, task = argument.partition(":")
    if not re.fullmatch(r"\d+(,\d+)*", numbers):
        raise ValueError("name the blocks and a task, like blocks:0,1:gsm8k")
    return only(rf"\.({numbers.replace(',', '|')})\.", inputs.task(task))


def only(pattern: str, attack: FineTune) -> FineTune:
    """The attack on the weights whose names match ``pattern``."""
    return replace(attack, optim=replace(attack.optim, parameters=pattern))


ATTACKS: Mapping[str, AttackKind] = {
    "lora": AttackKind(lora, example="mood"),
    "head": AttackKind(head, example="mood"),
    "blocks": AttackKind(blocks, example="0,1:mood"),
}
