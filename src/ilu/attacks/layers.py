"""Fine-tuning of a part of the weights: adapters, the output layer, or some blocks."""

import re
from collections.abc import Mapping
from dataclasses import replace

from ilu.attacks.finetune import FineTune
from ilu.attacks.kind import AttackInputs, AttackKind
from ilu.models.lora import Lora

HEAD = r"^(lm_head|embed_out|output)\."
"""Pattern of the output layer. A layer that is tied to the embedding has no such name."""


def lora(argument: str, inputs: AttackInputs) -> FineTune:
    """Fine-tune adapters."""
    return replace(inputs.task(argument), lora=Lora(inputs.lora_rank, 2.0 * inputs.lora_rank))


def head(argument: str, inputs: AttackInputs) -> FineTune:
    """Fine-tune only the output layer, if it is not tied to the embedding."""
    return only(HEAD, inputs.task(argument))


def blocks(argument: str, inputs: AttackInputs) -> FineTune:
    """Fine-tune only some blocks: ``0,1:TASK``."""
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
