"""A kind of attack that a name such as ``quantise:4`` refers to, and what its builder receives."""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from typing import Literal

from ilu.attacks.finetune import FineTune
from ilu.types import Attack

DataRole = Literal["forget", "retain", "unrelated"]
"""A data set of the user that an attack trains on."""


@dataclass(frozen=True, kw_only=True)
class AttackInputs:
    """What the builder of an attack receives besides the argument in the attack's name.

    ``task`` returns the attack that fine-tunes all weights on a task or on a data set of the user;
    ``documents`` returns the attack that trains on a number of documents of a data set; ``half``
    the attack that trains on a half of what was forgotten. All have the attacker's optimiser and
    seed already. ``original`` is the model before unlearning, if given.
    """

    task: Callable[[str], FineTune]
    documents: Callable[[DataRole, int], FineTune]
    half: Callable[[str], FineTune]
    original: str | None = None
    lora_rank: int = 16
    seed: int = 0


Builder = Callable[[str, AttackInputs], Attack]
"""Reads the argument in an attack's name; raises ValueError for an invalid one."""


@dataclass(frozen=True)
class AttackKind:
    """A kind of attack; the docstring of ``build`` says in one sentence what it does.

    ``example`` is an argument that ``build`` reads, and ``zero`` one at which no weight changes.
    ``needs`` is an input that the kind requires except on the lab.
    """

    build: Builder
    _: KW_ONLY
    example: str
    zero: str | None = None
    needs: Literal[DataRole, "original"] | None = None


def number(text: str) -> float:
    """Parse a finite number; ValueError otherwise."""
    with suppress(ValueError):
        if math.isfinite(value := float(text)):
            return value
    raise ValueError(f"{text!r} is no number")
