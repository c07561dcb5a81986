"""Relearning from one half of the facts, measured on the other half (RTT, arXiv 2410.08827)."""

from collections.abc import Mapping

from ilu.attacks.finetune import FineTune
from ilu.attacks.kind import AttackInputs, AttackKind, number
from ilu.attacks.relearn import at_rate


def rtt(argument: str, inputs: AttackInputs) -> FineTune:
    """Fine-tune on the documents of half the facts, ``a`` or ``b``; the goal is the other half.

    The halves share no fact, so what comes back was not taught. The paper trains on four fifths
    of the questions; documents are trained on here, as its own data has them. ``a@LR`` sets the
    learning rate.
    """
    half, _, lr = argument.partition("@")
    rate = number(lr) if lr else None
    return at_rate(inputs.half(half), rate)


ATTACKS: Mapping[str, AttackKind] = {"rtt": AttackKind(rtt, example="a", needs="forget")}
