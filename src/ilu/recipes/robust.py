"""Additions to any method: robust training of its forget term, and the invariance penalty.

A recipe's name is METHOD, optionally an ending of ``registry.endings``, and optionally ``ilu`` or
``control``.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ilu.data.splits import Fold
from ilu.data.stream import Feed
from ilu.methods.ending import Ending
from ilu.methods.method import Folds
from ilu.methods.retain.likelihood import NLL
from ilu.methods.robust.adversary import FORGET
from ilu.methods.robust.gru import GRU
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
from ilu.methods.robust.l1 import L1
from ilu.methods.robust.repselect import RepSelect
from ilu.recipes.settings import Invariance
from ilu.training.objective import Objective, Term
from ilu.training.schedules import Dual, Ramp, Switch

READINGS = {f.__name__: f for f in (parameters, tensors, elementwise, gradient)}


def with_invariance(
    objective: Objective,
    invariance: Invariance,
    environments: Sequence[str],
    forget: Sequence[str],
) -> Objective:
    """Add the penalty of every environment: l_u + lambda sum_i P_i (arXiv 2506.01339)."""
    learned = tuple(term.on for term in objective.values() if term.on in forget)
    if invariance.directions == "forget" and not learned:
        raise ValueError("`directions` forget: this method has no forget data")
    return with_environments(objective, penalty(invariance, learned), invariance, environments)


def with_control(
    objective: Objective,
    invariance: Invariance,
    environments: Sequence[str],
    forget: Sequence[str],
) -> Objective:
    """Add the plain likelihood of the environments: the control for the penalty."""
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
        raise ValueError("an -ilu recipe needs at least one `environment` to be invariant over")
    strength, warmup = invariance.strength, invariance.strength_warmup
    weighted = replace(
        term,
        weight=Ramp(0.0, strength, warmup) if warmup else strength,
        relative_to=next(iter(objective)) if invariance.scale_free else None,
    )
    names = ["invariance", *(f"invariance{i}" for i in range(2, len(environments) + 1))]
    added = {name: replace(weighted, on=on) for name, on in zip(names, environments, strict=True)}
    return {**objective, **added}


def with_robust(
    objective: Objective, ending: Ending, settings: Any, forget: Sequence[str]
) -> Objective:
    """Train the terms on the streams ``forget`` robustly, or else the first term.

    The other terms keep their rules.
    """
    names = [n for n, term in objective.items() if term.on in forget]
    chosen, forgets = names or list(objective)[:1], bool(names)
    return {
        n: robust(t, ending, settings, forgets) if n in chosen else t for n, t in objective.items()
    }


def robust(term: Term, ending: Ending, settings: Any, forgets: bool) -> Term:
    """The robust version of one term. A rule around another one stays outside the robust rule."""
    if not isinstance(term.rule, L1 | GRU | RepSelect):
        return ending.apply(term, settings, forgets)
    inner = ending.apply(replace(term, rule=term.rule.inner), settings, forgets)
    return replace(inner, rule=replace(term.rule, inner=inner.rule))


def with_topics(
    objective: Objective, topics: Sequence[str], for_topic: Callable[[Term, int], Term]
) -> Objective:
    """One forget term per topic; their weights sum to that of the single term."""
    if len(topics) < 2 or FORGET not in objective:
        return objective
    one = objective[FORGET]
    shared = {on: for_topic(replace(one, on=on), i) for i, on in enumerate(topics)}
    return {
        **{on: lighter(term, len(topics)) for on, term in shared.items()},
        **{n: term for n, term in objective.items() if n != FORGET},
    }


def in_stages(objective: Objective, forget: Sequence[str], folds: Folds, steps: int) -> Objective:
    """The terms on the streams ``forget`` on one fold after the other (arXiv 2505.09500).

    Fold j is forgotten from stage j on and retained before. Each has an equal part of the weight.
    The first fold's term keeps its name.
    """
    made: dict[str, Term] = {}
    for name, term in objective.items():
        if term.on not in forget:
            made[name] = term
            continue
        part = lighter(term, folds.count).weight
        if not isinstance(part, float):
            raise ValueError(f"the weight of term {name!r} changes: it cannot have stages as well")
        made[name] = replace(term, on=fold_stream(term.on, 0), weight=part)
        for j in range(1, folds.count):
            on, at = fold_stream(term.on, j), steps * j // folds.count
            kept = Switch(folds.gamma / folds.count, 0.0, at)
            made[fold_stream(name, j)] = replace(term, on=on, weight=Switch(0.0, part, at))
            made[f"{fold_stream(name, j)} kept"] = Term(NLL(), on=on, weight=kept)
    return made


def fold_stream(name: str, index: int) -> str:
    """The name of a fold of a stream."""
    return f"{name} fold {index + 1}"


def fold_feeds(name: str, feed: Feed, folds: Folds) -> dict[str, Feed]:
    """The folds of a stream, each with an equal part of its batch."""
    size = max(1, feed.batch_size // folds.count)
    return {
        fold_stream(name, i): Feed(Fold(feed.source, i, folds.count, folds.together), size)
        for i in range(folds.count)
    }


def lighter(term: Term, by: int) -> Term:
    """The term with its weight divided by ``by``."""
    match term.weight:
        case Ramp() as ramp:
            return replace(term, weight=Ramp(ramp.start / by, ramp.stop / by, ramp.steps))
        case Dual() | Switch():
            raise ValueError("several topics cannot share a term whose weight is a multiplier")
        case weight:
            return replace(term, weight=weight / by)
