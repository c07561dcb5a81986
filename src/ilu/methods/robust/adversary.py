"""Rules that look at the model after an adversary has worked on it."""

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from ilu.methods.ending import Ending
from ilu.methods.retain.likelihood import NLL
from ilu.methods.robust.rules import norm, restored, weighted_sum
from ilu.training.objective import Term
from ilu.types import Copies, GradHere, GradOf, Grads, Params, Slope

FORGET = "forget"
"""The stream of what is to be forgotten; of several topics, that of the term."""


@dataclass(frozen=True)
class TAR:
    """Gradients of the term along an adversary's fine-tuning (TAR, arXiv 2408.00761), first order.

    The adversary takes K steps of AdamW. The term's gradient is taken every few of them, weighted
    by exp((i - K + 1) / 16), so that late ones count most. Each step of the model pays for all of
    the adversary's.

    Args:
        inner_steps: steps of the adversary.
        inner_every: steps of the adversary between two gradients of the term.
        inner_lr: learning rate of the adversary.
        inner_scale: scale of all weights, 4 in the paper.
        adversary: the stream on which the adversary trains.
    """

    inner_steps: int = 64
    inner_every: int = 4
    inner_lr: float = 2e-5
    inner_scale: float = 4.0
    adversary: str = FORGET
    power = None
    copies = Copies(6, 5, 5)

    def __post_init__(self) -> None:
        if not 1 <= self.inner_every <= self.inner_steps:
            raise ValueError(
                f"inner_every {self.inner_every}, inner_steps {self.inner_steps}: the first must "
                "be from 1 to the second"
            )

    def reads(self) -> tuple[str, ...]:
        return (self.adversary,)

    def __call__(self, params: Params, here: GradHere, grad_of: GradOf, step: int) -> Slope:
        with restored(params), adversary(params, self.inner_lr) as attack:
            return weighted_sum(self.along(attack, here, grad_of))

    def along(
        self, attack: Callable[[Grads], None], here: GradHere, grad_of: GradOf
    ) -> Iterator[tuple[float, Slope]]:
        """The term's weighted gradients on the adversary's way."""
        for i in range(self.inner_steps):
            attack(grad_of(NLL(), self.adversary).grads)
            if (i + 1) % self.inner_every == 0:
                yield self.inner_scale * math.exp((i + 1 - self.inner_steps) / 16), here()


@dataclass(frozen=True)
class DisruptionMasking:
    """Unlearn at an adversary's weights, only where it does not hurt (MUDMAN, arXiv 2506.12484).

    The term's gradient after some steps of fine-tuning, kept in the entries in which it has the
    sign of the retain gradient, then brought to the norm of the term's own gradient. MUDMAN keeps
    one adversary for many steps and a running mean of the retain gradient; here both are taken
    afresh, so that a step depends on the weights alone.

    Args:
        adversary_steps: steps of the adversary.
        adversary_lr: its learning rate.
        adversary: the stream on which it trains.
        agree_with: the stream whose gradient must have the same sign.
    """

    adversary_steps: int = 4
    adversary_lr: float = 1e-4
    adversary: str = FORGET
    agree_with: str = "retain"
    power = None
    copies = Copies(7, 5, 5)

    def __post_init__(self) -> None:
        if self.adversary_steps < 1:
            raise ValueError(f"adversary_steps {self.adversary_steps}: at least 1 is needed")

    def reads(self) -> tuple[str, ...]:
        return (self.adversary, self.agree_with)

    def __call__(self, params: Params, here: GradHere, grad_of: GradOf, step: int) -> Slope:
        value, own = here()
        _, kept = grad_of(NLL(), self.agree_with)
        with restored(params), adversary(params, self.adversary_lr) as attack:
            for _ in range(self.adversary_steps):
                attack(grad_of(NLL(), self.adversary).grads)
            _, g = here()
        agreeing = tuple(a * (a.sign() == b.sign()) for a, b in zip(g, kept, strict=True))
        scale = norm(own) / norm(agreeing)
        return Slope(value, tuple(scale * a for a in agreeing))


@contextmanager
def adversary(params: Params, lr: float) -> Generator[Callable[[Grads], None]]:
    """AdamW on ``params`` that leaves the gradients collected so far alone."""
    held = [p.grad for p in params]
    adam = torch.optim.AdamW(params, lr=lr, weight_decay=0.0)

    def step(grads: Grads) -> None:
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        adam.step()
        for p, g in zip(params, held, strict=True):
            p.grad = g

    yield step


def relearning(term: Term, rule: TAR | DisruptionMasking, forgets: bool) -> Term:
    """The term under an adversary who learns again what this very term is to forget."""
    own = forgets and rule.adversary == FORGET
    return replace(term, rule=replace(rule, adversary=term.on) if own else rule)


ENDINGS = {
    "tar": Ending(
        TAR,
        relearning,
        lab={"inner_steps": 8, "inner_every": 4, "inner_lr": 3e-4, "inner_scale": 0.3},
    ),
    "mudman": Ending(
        DisruptionMasking, relearning, lab={"adversary_steps": 2, "adversary_lr": 3e-4}
    ),
}
