"""Objective = weighted sum of named terms; here it is evaluated and differentiated."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from ilu.data import split
from ilu.robust.rules import plain
from ilu.types import Batch, Forward, GradRule, Loss, Params, Slope


@dataclass(frozen=True)
class Term:
    """``weight`` times ``loss`` on the data stream ``on``, differentiated by ``rule``."""

    loss: Loss
    on: str
    weight: float = 1.0
    rule: GradRule = plain


Objective = Mapping[str, Term]
Draw = Callable[[str], Batch]


@dataclass(frozen=True)
class Engine:
    """What evaluates a loss. ``exact`` is ``forward`` without autocast.

    ``micro_batch`` bounds the examples of one forward pass; every result is that of whole batches.
    """

    forward: Forward
    exact: Forward
    reference: Forward
    params: Params
    micro_batch: int | None = None

    def backward(self, loss: Loss, batch: Batch, *, weight: float, forward: Forward) -> float:
        """Add the gradient of ``weight`` times the mean loss to ``.grad``; return the mean loss."""
        total = 0.0
        for part in split(batch, self.micro_batch):
            value = loss(forward, self.reference, part).sum() / len(batch)
            (weight * value).backward()
            total += value.item()
        return total

    def slope(self, loss: Loss, batch: Batch) -> Slope:
        """Value and gradient of the mean loss, leaving ``.grad`` as it was.

        Rules that perturb the weights come here, so there is no autocast: a perturbation smaller
        than the spacing of bfloat16 would vanish.
        """
        held = [p.grad for p in self.params]
        set_grads(self.params, [None] * len(held))
        value = self.backward(loss, batch, weight=1.0, forward=self.exact)
        grads = tuple(torch.zeros_like(p) if p.grad is None else p.grad for p in self.params)
        set_grads(self.params, held)
        return Slope(value, grads)


def accumulate(objective: Objective, engine: Engine, draw: Draw) -> dict[str, float]:
    """Add the gradient of the objective to ``.grad``; return the value of each term.

    Terms on the same stream share one batch; a rule that asks for more gets fresh ones.
    """
    batches = {on: draw(on) for on in dict.fromkeys(term.on for term in objective.values())}
    return {
        name: contribute(term, batches[term.on], engine, draw) for name, term in objective.items()
    }


def contribute(term: Term, batch: Batch, engine: Engine, draw: Draw) -> float:
    """Add one term's gradient to ``.grad``; only a rule other than ``plain`` holds a second one."""
    if term.rule is plain:
        return engine.backward(term.loss, batch, weight=term.weight, forward=engine.forward)
    here = partial(engine.slope, term.loss, batch)
    value, grads = term.rule(engine.params, here, lambda loss, on: engine.slope(loss, draw(on)))
    for p, grad in zip(engine.params, grads, strict=True):
        p.grad = term.weight * grad if p.grad is None else p.grad.add_(grad, alpha=term.weight)
    return value


def set_grads(params: Params, grads: list[torch.Tensor | None]) -> None:
    """Point each ``.grad`` at the given tensor, copying nothing."""
    for p, grad in zip(params, grads, strict=True):
        p.grad = grad
