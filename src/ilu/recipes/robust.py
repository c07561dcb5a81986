"""What can be added to any method: robust training of its forget term, and the invariance penalty.

A recipe's name is METHOD, then perhaps one of ``ROBUST``, then perhaps ``ilu`` or ``control``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from ilu.methods.forget.lat import Latent, LatentAttack
from ilu.methods.retain.likelihood import NLL
from ilu.methods.robust.adversary import TAR, DisruptionMasking
from ilu.methods.robust.flatness import CurvaturePenalty, GradientPenalty
from ilu.methods.robust.ilu import (
    Layerwise,
    Penalty,
    ScaleGradient,
    Square,
    elementwise,
    gradient,
    parameters,
    tensors,
)
from ilu.methods.robust.lookahead import LookAhead
from ilu.methods.robust.rules import L1, SAM, RandomSmoothing
from ilu.training.objective import Objective, Term
from ilu.training.schedules import Dual, Ramp

Reading = Literal["logits", "parameters", "tensors", "elementwise", "gradient"]
READINGS = {f.__name__: f for f in (parameters, tensors, elementwise, gradient)}


@dataclass(frozen=True)
class Averaging:
    """Average the weights of the last steps (WA, arXiv 2502.05374).

    Published with token NPO on WMDP: lr 5.5e-6, beta 0.05, gamma 2.

    Args:
        last: share of the steps that is averaged over; published: 100 to 125 of 125.
    """

    last: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.last <= 1:
            raise ValueError(f"last {self.last}: a share of the steps, above 0 and at most 1")


ROBUST: dict[str, type] = {
    "sam": SAM,
    "rs": RandomSmoothing,
    "gp": GradientPenalty,
    "cr": CurvaturePenalty,
    "wa": Averaging,
    "lat": LatentAttack,
    "tar": TAR,
    "mudman": DisruptionMasking,
    "ahead": LookAhead,
}
"""Ending of a recipe's name -> the settings of robust training, which are its flags."""


@dataclass(frozen=True)
class Invariance:
    """ILU's settings: ``lambda`` and what w multiplies (arXiv 2506.01339).

    Lambda is not published: 0.1 with scale_free is ours, the middle of what was searched on small
    models and untested at 7B; the lab has what was chosen there.

    Args:
        strength: lambda, the weight of each environment's penalty.
        reading: what w multiplies; gradient stands for the whole gradient.
        directions: what w scales: the weights, or the gradient that would learn the forget data.
        layerwise: let the gradient of every weight tensor count alike, however long it is.
        strength_warmup: steps in which the strength grows from 0.
        scale_free: measure the strength in units of the forget term: at the first step the
            penalty is the strength times as large, however small either happens to be.
    """

    strength: float = 0.1
    reading: Reading = "gradient"
    directions: Literal["weights", "forget"] = "weights"
    layerwise: bool = False
    strength_warmup: int = 0
    scale_free: bool = True

    def __post_init__(self) -> None:
        if not self.strength >= 0:
            raise ValueError(f"strength {self.strength:g}: it must be at least 0")
        if self.strength_warmup < 0:
            raise ValueError(f"strength_warmup {self.strength_warmup}: it must be at least 0")
        if self.reading == "logits" and self.layerwise:
            raise ValueError("layerwise: the reading logits has no gradients of weights to weigh")
        if self.directions == "forget" and self.reading in ("logits", "gradient"):
            raise ValueError(
                f"directions forget: in the reading {self.reading} w scales no weights that a "
                "direction could stand for: choose parameters, tensors or elementwise"
            )


def with_invariance(
    objective: Objective, invariance: Invariance, environments: Sequence[str]
) -> Objective:
    """Add the penalty of every environment: l_u + lambda sum_i P_i (arXiv 2506.01339)."""
    forget = tuple(t.on for t in objective.values() if t.on.startswith("forget"))
    if invariance.directions == "forget" and not forget:
        raise ValueError("directions forget: this method reads nothing that is to be forgotten")
    return with_environments(objective, penalty(invariance, forget), invariance, environments)


def with_control(
    objective: Objective, invariance: Invariance, environments: Sequence[str]
) -> Objective:
    """Add the environments' plain likelihood: what any claim about the penalty is compared with."""
    return with_environments(objective, Term(NLL(), on=""), invariance, environments)


def penalty(invariance: Invariance, forget: tuple[str, ...]) -> Term:
    """The penalty of one environment, in the chosen reading."""
    if invariance.reading == "logits":
        return Term(ScaleGradient(), on="", rule=Square())
    reading = READINGS[invariance.reading]
    against = forget if invariance.directions == "forget" else ()
    even = Layerwise(reading) if invariance.layerwise else reading
    return Term(NLL(), on="", rule=Penalty(even, adversaries=against))


def with_environments(
    objective: Objective, term: Term, invariance: Invariance, environments: Sequence[str]
) -> Objective:
    """Add ``term`` on every environment, weighted by the strength."""
    if not environments:
        raise ValueError("an -ilu recipe needs at least one --environment to be invariant over")
    strength, warmup = invariance.strength, invariance.strength_warmup
    weighted = replace(
        term,
        weight=Ramp(0.0, strength, warmup) if warmup else strength,
        relative_to=next(iter(objective)) if invariance.scale_free else None,
    )
    names = ["invariance", *(f"invariance{i}" for i in range(2, len(environments) + 1))]
    added = {name: replace(weighted, on=on) for name, on in zip(names, environments, strict=True)}
    return {**objective, **added}


def with_robust(objective: Objective, settings: Any) -> Objective:
    """Train the forget terms robustly, or the only term of a method that has none.

    What is to be kept beside them is still taken at the weights.
    """
    names = [n for n in objective if n.startswith("forget")] or list(objective)[:1]
    return {n: robust(t, settings) if n in names else t for n, t in objective.items()}


def robust(term: Term, settings: Any) -> Term:
    """One term, robustly."""
    match settings:
        case Averaging():
            return term
        case LatentAttack():
            loss: Any = Latent(term.loss, settings)
            return replace(term, loss=loss)
        case rule if isinstance(term.rule, L1):
            return replace(term, rule=replace(term.rule, inner=against(term, rule)))
        case rule:
            return replace(term, rule=against(term, rule))


def against(term: Term, rule: Any) -> Any:
    """The rule with an adversary who learns again what this term is to forget."""
    learns = getattr(rule, "adversary", None) == "forget" and term.on.startswith("forget")
    return replace(rule, adversary=term.on) if learns else rule


def with_topics(objective: Objective, topics: Sequence[str]) -> Objective:
    """One forget term per topic, together as heavy as the one; RMU steers each its own way."""
    if len(topics) < 2 or "forget" not in objective:
        return objective
    one = objective["forget"]
    shared = [replace(one, on=on, loss=topical(one.loss, i)) for i, on in enumerate(topics)]
    return {**{on: lighter(t, len(topics)) for on, t in zip(topics, shared, strict=True)},
            **{n: t for n, t in objective.items() if n != "forget"}}  # fmt: skip


def topical(loss: Any, topic: int) -> Any:
    """The loss of a topic, where the loss tells them apart."""
    return replace(loss, topic=topic) if "topic" in {f.name for f in fields(loss)} else loss


def lighter(term: Term, by: int) -> Term:
    """The same term with its weight divided."""
    match term.weight:
        case Ramp() as ramp:
            return replace(term, weight=Ramp(ramp.start / by, ramp.stop / by, ramp.steps))
        case Dual():
            raise ValueError("several topics cannot share a term whose weight is a multiplier")
        case weight:
            return replace(term, weight=weight / by)
