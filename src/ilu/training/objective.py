"""Evaluation and gradient of an objective, a weighted sum of named terms."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import torch

from ilu.data.stream import split
from ilu.models.forward import Shared
from ilu.system.distributed import ALONE, Ranks
from ilu.training.schedules import Dual, Ramp, Switch
from ilu.types import Batch, Copies, Forward, GradHere, GradOf, GradRule, Grads, Loss, Params, Slope


@dataclass(frozen=True)
class Plain:
    """The plain gradient of a term."""

    power = 1
    copies = Copies(1)

    def reads(self) -> tuple[str, ...]:
        return ()

    def __call__(self, params: Params, here: GradHere, grad_of: GradOf, step: int) -> Slope:
        return here()


Memory = dict[str, float]
"""State of the term weights between steps; part of a checkpoint."""


@dataclass(frozen=True)
class Term:
    """``weight`` times ``loss`` on the data stream ``on``, differentiated by ``rule``.

    With ``relative_to`` the weight is in units of another term, which must come earlier: at the
    first step the weighted value is ``weight`` times that term's, at any scale of either.
    """

    loss: Loss
    on: str
    weight: float | Ramp | Switch | Dual = 1.0
    rule: GradRule = Plain()
    relative_to: str | None = None


Objective = Mapping[str, Term]
Draw = Callable[[str], Batch]


class Views(NamedTuple):
    """The model and the reference, in the interface for losses."""

    model: Forward
    reference: Forward


@dataclass(frozen=True)
class Engine:
    """Evaluates losses and their gradients. ``exact`` is ``views`` without autocast.

    ``micro_batch`` is the largest number of examples of a forward pass. Every result is that of the
    full batch, whose rows are distributed over ``ranks``.
    """

    views: Views
    exact: Views
    params: Params
    micro_batch: int | None = None
    ranks: Ranks = ALONE

    def backward(self, loss: Loss, batch: Batch, *, weight: float, exact: bool = False) -> float:
        """Add the gradient of ``weight`` times the mean loss to ``.grad``; return the mean loss."""
        views = self.exact if exact else self.views
        total = 0.0
        for part in split(batch, self.micro_batch):
            value = loss(*views, part).sum() / len(batch)
            (weight * value / self.ranks.divisor).backward()
            total += value.item()
        return self.ranks.mean(total)

    @torch.no_grad()
    def mean(self, loss: Loss, batch: Batch) -> float:
        """The mean loss in full precision, without a gradient."""
        parts = split(batch, self.micro_batch)
        total = sum(loss(*self.exact, part).sum().item() for part in parts)
        return self.ranks.mean(total / len(batch))

    def fits_unsplit(self, batch: Batch) -> bool:
        """Whether the batch is not split."""
        return self.micro_batch is None or len(batch) <= self.micro_batch

    def slope(
        self, loss: Loss, batch: Batch, *, exact: bool = True, onto: Grads | None = None
    ) -> Slope:
        """Value and gradient of the mean loss; ``.grad`` is preserved.

        Rules that perturb the weights need ``exact``: a perturbation below the spacing of bfloat16
        would vanish. With ``onto`` the gradient is added to these tensors, which all processes
        have: only one of those that sum their gradients begins with them.
        """
        saved = [p.grad for p in self.params]
        begins = onto is not None and self.ranks.share
        set_grads(self.params, list(onto) if onto and begins else [None] * len(saved))
        value = self.backward(loss, batch, weight=1.0, exact=exact)
        self.ranks.sum_grads(self.params)
        grads = tuple(torch.zeros_like(p) if p.grad is None else p.grad for p in self.params)
        set_grads(self.params, saved)
        return Slope(value, grads)


@dataclass
class Handover:
    """The gradient of a plain term, from which the rule of the next term starts.

    With the retain batch as environment a penalty begins with the gradient of the retain term. It
    is taken over once, and only at the weights at which it was computed.
    """

    kept: list[Slope] = field(default_factory=list[Slope])
    versions: list[int] = field(default_factory=list[int])

    def give(self, slope: Slope, params: Params) -> None:
        """Keep a gradient at the present weights."""
        self.kept, self.versions = [slope], versions(params)

    def take(self, params: Params) -> Slope | None:
        """The gradient, whose tensors the caller may change, or None at other weights."""
        return self.kept.pop() if self.kept and self.versions == versions(params) else None


def versions(params: Params) -> list[int]:
    """How often each weight was written in place."""
    return [p._version for p in params]


def accumulate(
    objective: Objective, engine: Engine, draw: Draw, memory: Memory, step: int
) -> dict[str, float]:
    """Add the gradient of the objective to ``.grad``; return the value of each term.

    Terms on the same stream share one batch, and adjacent ones also a forward and a backward pass.
    A rule that draws further batches gets new ones. A rule whose term has the loss and the batch of
    the plain term before it starts from that gradient, which is computed once.
    """
    batches = {on: draw(on) for on in dict.fromkeys(term.on for term in objective.values())}
    values: dict[str, float] = {}
    groups, handover = passes(objective), Handover()
    for terms, after in zip(groups, [*groups[1:], {}], strict=True):
        batch = batches[next(iter(terms.values())).on]
        starts = is_start(terms, after, engine)
        joined = all(joins(term) for term in terms.values())
        if joined and engine.fits_unsplit(batch) and not starts:
            values |= together(terms, batch, engine, memory, step)
            continue
        for name, term in terms.items():
            values[name] = separately(
                name, term, batch, engine, draw, memory, step, handover, keep=starts
            )
    engine.ranks.sum_grads(engine.params)
    return values


def passes(objective: Objective) -> list[Objective]:
    """Groups of terms that may share a forward and a backward pass."""
    return [dict(group) for _, group in groupby(objective.items(), lambda item: pass_key(*item))]


def is_start(terms: Objective, after: Objective, engine: Engine) -> bool:
    """Whether the rule of the next term may start from the gradient of this one term.

    Not under autocast, because a rule differentiates in full precision.
    """
    if len(terms) != 1 or len(after) != 1 or engine.views is not engine.exact:
        return False
    (one,), (other,) = terms.values(), after.values()
    same = one.on == other.on and one.loss == other.loss
    return same and one.rule.power == 1 and not joins(other)


def joins(term: Term) -> bool:
    """Whether the term depends only on the mean loss, so that it needs no separate gradient."""
    return term.rule.power is not None


def pass_key(name: str, term: Term) -> tuple[str, str]:
    """Key of a term's group: adjacent terms with the same key share a pass."""
    return ("stream", term.on) if joins(term) else ("term", name)


def together(
    terms: Objective, batch: Batch, engine: Engine, memory: Memory, step: int
) -> dict[str, float]:
    """Terms that share a forward pass on a batch, and the backward pass of their sum."""
    model, reference = engine.views
    forward = model if len(terms) == 1 else Shared(model)
    values: dict[str, float] = {}
    total = torch.zeros(())
    for name, term in terms.items():
        weight = weight_of(term, name, memory, step)
        mean = term.loss(forward, reference, batch).sum() / len(batch)
        value = engine.ranks.mean(mean.item())
        # With m the mean over all processes: d m^p = p m^(p - 1) dm.
        power = term.rule.power or 1
        values[name], slope = value**power, power * value ** (power - 1)
        total = weight * relation(term, name, memory, values[name]) * slope * mean + total
        remember(term, name, memory, weight, values[name])
    (total / engine.ranks.divisor).backward()
    return values


def separately(
    name: str,
    term: Term,
    batch: Batch,
    engine: Engine,
    draw: Draw,
    memory: Memory,
    step: int,
    handover: Handover,
    *,
    keep: bool,
) -> float:
    """Add the gradient of one term by its rule and in micro-batches; return its value.

    With ``keep`` the gradient of the term is handed over to the rule of the next one.
    """
    weight = weight_of(term, name, memory, step)
    if term.rule.power == 1 and term.relative_to is None and not keep:
        value = engine.backward(term.loss, batch, weight=weight)
    else:
        value, grads = ruled(term, batch, engine, draw, step, handover)
        here = engine.ranks.share * weight * relation(term, name, memory, value)
        add(engine.params, grads, here)
        if keep:
            handover.give(Slope(value, grads), engine.params)
    remember(term, name, memory, weight, value)
    return value


def ruled(
    term: Term, batch: Batch, engine: Engine, draw: Draw, step: int, handover: Handover
) -> Slope:
    """Value and gradient of one term by its rule. It needs memory for a second gradient.

    A term that is separate only because of micro-batches has the precision of a shared pass.
    """
    exact = not joins(term)

    def here(onto: Grads | None = None) -> Slope:
        if onto is None and (known := handover.take(engine.params)):
            return known
        return engine.slope(term.loss, batch, exact=exact, onto=onto)

    return term.rule(engine.params, here, lambda loss, on: engine.slope(loss, draw(on)), step)


def add(params: Params, grads: Grads, weight: float) -> None:
    """Add ``weight`` times a gradient to ``.grad``."""
    for p, grad in zip(params, grads, strict=True):
        p.grad = weight * grad if p.grad is None else p.grad.add_(grad, alpha=weight)


def weight_of(term: Term, name: str, memory: Memory, step: int) -> float:
    """The weight of a term at a step, before ``relation``."""
    match term.weight:
        case Ramp() | Switch() as schedule:
            return schedule(step)
        case Dual() as dual:
            return memory.get(f"{name} multiplier", dual.start)
        case number:
            return number


def relation(term: Term, name: str, memory: Memory, value: float) -> float:
    """First value of the term that this one is relative to, over its own first value."""
    if term.relative_to is None:
        return 1.0
    own = abs(memory.get(f"{name} at first", value))
    if own == 0:
        raise ValueError(
            f"{name} is 0 at the first step, so no strength can be in units of it (some penalties "
            "of new LoRA adapters are): set `strength` itself, and switch `scale_free` off"
        )
    return abs(memory[f"{term.relative_to} at first"]) / own


def remember(term: Term, name: str, memory: Memory, weight: float, value: float) -> None:
    """Store what the weights of later steps need."""
    memory.setdefault(f"{name} at first", value)
    if isinstance(term.weight, Dual):
        memory[f"{name} multiplier"] = term.weight.after(weight, value)


def set_grads(params: Params, grads: list[torch.Tensor | None]) -> None:
    """Set each ``.grad`` to the given tensor, without a copy."""
    for p, grad in zip(params, grads, strict=True):
        p.grad = grad
