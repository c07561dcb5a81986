"""Zeroth-order descent: the gradient is estimated from two values of the objective."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ilu.training.objective import (
    Draw,
    Engine,
    Memory,
    Objective,
    joins,
    relation,
    remember,
    weight_of,
)
from ilu.training.optim.masked import Moving
from ilu.training.optim.protocol import Curvature, Named

RADIUS = 1e-3
"""mu of MeZO (arXiv 2305.17333)."""


def two_point(difference: float, u: Float[Tensor, "..."], *, mu: float) -> Float[Tensor, "..."]:
    """difference / (2 mu) u, of L(theta + mu u) - L(theta - mu u) (SPSA; 2305.17333, 2510.00761).

    For standard normal u its expectation is grad L as mu -> 0, since E[u u^T] is the identity.
    """
    return difference / (2 * mu) * u


@dataclass(frozen=True)
class MeZO:
    """theta <- theta - lr g for the estimate g of ``estimate``, without momentum (2305.17333).

    The zeroth-order grade of arXiv 2510.00761, with one direction per step. The length of g is
    about that of the gradient times the square root of the number of weights, so the default
    ``clip`` 1 makes every step as long as the learning rate; published is ``clip`` None.
    """

    named: Named

    def refresh(self, step: int, curvature: Curvature) -> None:
        pass

    @torch.no_grad()
    def step(self, step: int, rate: float) -> None:
        for p in self.named.values():
            if p.grad is not None:
                p.sub_(rate * p.grad)

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        pass


def check_values(objective: Objective) -> None:
    """ValueError for terms that are more than a function of the mean loss."""
    if ruled := [name for name, term in objective.items() if not joins(term)]:
        raise ValueError(
            f"mezo takes no gradients, and the rule of term {ruled[0]!r} needs some: use a method "
            "without such an ending, or another `optimizer`"
        )


@torch.no_grad()
def estimate(
    objective: Objective, engine: Engine, free: Moving, draw: Draw, memory: Memory, step: int
) -> dict[str, float]:
    """Set ``.grad`` to the two-point estimate; return the mean of both values of each term.

    Both are computed on the same batches. The direction depends only on ``step``. Entries that may
    not change are not moved.
    """
    batches = {on: draw(on) for on in dict.fromkeys(term.on for term in objective.values())}
    u = direction(free, step)
    found: list[dict[str, float]] = []
    for sign in (1, -1):
        with at(free.moved, u, sign * RADIUS):
            found.append({
                name: engine.mean(term.loss, batches[term.on]) ** (term.rule.power or 1)
                for name, term in objective.items()
            })  # fmt: skip
    ahead, behind = found
    values = {name: (ahead[name] + behind[name]) / 2 for name in objective}
    difference = 0.0
    for name, term in objective.items():
        weight = weight_of(term, name, memory, step)
        factor = weight * relation(term, name, memory, values[name])
        difference += factor * (ahead[name] - behind[name])
        remember(term, name, memory, weight, values[name])
    for name, p in free.weights.items():
        p.grad = two_point(difference, u[name], mu=RADIUS) if name in u else None
    return values


def direction(free: Moving, seed: int) -> dict[str, Tensor]:
    """Standard normal numbers for the entries that may change, and 0 for others."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {n: torch.randn(p.shape, generator=generator).to(p) for n, p in free.moved.items()}
    return {n: u * free.masks[n] if n in free.masks else u for n, u in drawn.items()}


@contextmanager
def at(weights: Mapping[str, Tensor], u: Mapping[str, Tensor], mu: float) -> Generator[None]:
    """Move the weights by ``mu`` u, and restore them bit-identically."""
    saved = {n: w.clone() for n, w in weights.items()}
    for n, w in weights.items():
        w.add_(u[n], alpha=mu)
    try:
        yield
    finally:
        for n, w in weights.items():
            w.copy_(saved[n])
