"""What can be added to any method: the invariance penalty, and sharpness-aware forgetting."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ilu.objective import Objective, Term
from ilu.retain.likelihood import NLL
from ilu.robust.invariance import (
    Penalty,
    ScaleGradient,
    Square,
    elementwise,
    gradient,
    parameters,
    tensors,
)
from ilu.robust.rules import SAM

Reading = Literal["logits", "parameters", "tensors", "elementwise", "gradient"]
READINGS = {f.__name__: f for f in (parameters, tensors, elementwise, gradient)}


@dataclass(frozen=True)
class Invariance:
    """ILU's settings: ``lambda`` and what w multiplies (arXiv 2506.01339).

    Args:
        strength: lambda, the weight of each environment's penalty.
        reading: what w multiplies; gradient stands for the whole gradient.
    """

    strength: float = 1.0
    reading: Reading = "gradient"


def penalty(invariance: Invariance, on: str) -> Term:
    """The penalty on one environment, as a term."""
    if invariance.reading == "logits":
        return Term(ScaleGradient(), on=on, weight=invariance.strength, rule=Square())
    rule = Penalty(READINGS[invariance.reading])
    return Term(NLL(), on=on, weight=invariance.strength, rule=rule)


def with_invariance(
    objective: Objective, invariance: Invariance, environments: Sequence[str]
) -> Objective:
    """Add the penalty of every environment: l_u + lambda sum_i P_i."""
    if not environments:
        raise ValueError("an -ilu recipe needs at least one --environment to be invariant over")
    names = ["invariance", *(f"invariance{i}" for i in range(2, len(environments) + 1))]
    added = {name: penalty(invariance, on) for name, on in zip(names, environments, strict=True)}
    return {**objective, **added}


def with_sam(objective: Objective, sam: SAM) -> Objective:
    """Take the forget gradient at the worst nearby weights; the retain gradient stays at theta."""
    return {**objective, "forget": replace(objective["forget"], rule=sam)}
