"""Gradient rules that simulate an adversary's fine-tuning (TAR, MUDMAN)."""

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from ilu.methods.ending import Ending
from ilu.methods.retain.likelihood import NLL
from ilu.methods.robust.perturb import norm, restored, weighted_sum
from ilu.training.objective import Term
from ilu.types import Copies, GradHere, GradOf, Grads, Params, Slope

FORGET = "forget"
"""The forget stream. With several topics, each term has its own."""


@dataclass(frozen=True)
class TAR:
    """Gradients of the term along an adversary's fine-tuning (TAR, arXiv 2408.00761), first order.

    The adversary takes K steps of AdamW. The term's gradient is taken every ``inner_every`` of
    them, with weight exp((i - K + 1) / 16), so that late ones count most. Each step of training
    costs all K steps of the adversary.

    Args:
        inner_steps: steps of the adversary.
        inner_every: steps of the adversary between two gradients of the term.
        inner_lr: learning rate of the adversary.
        inner_scale: factor on the weights of all gradients, 4 in the paper.
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
                f"`inner_every` {self.inner_every}, `inner_steps` {self.inner_steps}: the first "
                "must be from 1 to the second"
            )

    def reads(self) -> tuple[str, ...]:
        return (self.adversary,)

    def __call__(self, params: Params, here: GradHere, grad_of: GradOf, step: int) -> Slope:
        with restored(params), adversary(params, self.inner_lr) as attack:
            return weighted_sum(self.along(attack, here, grad_of))

    def along(
        self, attack: Callable[[Grads], None], here: GradHere, grad_of: GradOf
    ) -> Iterator[tuple[float, Slope]]:
        """The term's weighted gradients along the adversary's training."""
        for i in range(self.inner_steps):
            attack(grad_of(NLL(), self.adversary).grads)
            if (i + 1) % self.inner_every == 0:
                yield self.inner_scale * math.exp((i + 1 - self.inner_steps) / 16), here()


@dataclass(frozen=True)
class DisruptionMasking:
    """Forget gradient at an adversary's weights, without conflicts (MUDMAN, arXiv 2506.12484).

    The term's gradient is taken after some steps of fine-tuning. Entries whose sign differs from
    that of the retain gradient are set to zero. The rest is scaled to the norm of the term's
    gradient before the fine-tuning. MUDMAN keeps one adversary for many steps and a running mean of
    the retain gradient; here both are computed anew, so that a step depends only on the weights.

    Args:
        adversary_steps: steps of the adversary.
        adversary_lr: learning rate of the adversary.
        adversary: the stream on which the adversary trains.
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
            raise ValueError(f"`adversary_steps` {self.adversary_steps}: at least 1 is needed")

    def reads(self) -> tuple[str, ...]:
        return (self.adversary, self.agree_with)

    def __call__(self, params: Params, here: GradHere, grad_of: GradOf, step: int) -> Slope:
        value, before = here()
        _, retain = grad_of(NLL(), self.agree_with)
        with restored(params), adversary(params, self.adversary_lr) as attack:
            for _ in range(self.adversary_steps):
                attack(grad_of(NLL(), self.adversary).grads)
            _, g = here()
        agreeing = tuple(a * (a.sign() == b.sign()) for a, b in zip(g, retain, strict=True))
        scale = norm(before) / norm(agreeing)
        return Slope(value, tuple(scale * a for a in agreeing))


@contextmanager
def adversary(params: Params, lr: float) -> Generator[Callable[[Grads], None]]:
    """A step of AdamW on ``params`` that preserves the gradients accumulated in ``.grad``."""
    saved = [p.grad for p in params]
    adam = torch.optim.AdamW(params, lr=lr, weight_decay=0.0)

    def step(grads: Grads) -> None:
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        adam.step()
        for p, g in zip(params, saved, strict=True):
            p.grad = g

    yield step


def relearning(term: Term, rule: TAR | DisruptionMasking, forgets: bool) -> Term:
    """The term with an adversary that relearns the forget set of this term."""
    same_topic = forgets and rule.adversary == FORGET
    return replace(term, rule=replace(rule, adversary=term.on) if same_topic else rule)


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
