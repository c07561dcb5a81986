"""Latent adversarial training: the loss under an adversarial shift of hidden states."""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ilu.methods.ending import Ending
from ilu.methods.forget.ascent import Ascent
from ilu.training.objective import Term
from ilu.types import Batch, Calibrated, Cautious, Forward, Loss, Needs


@dataclass(frozen=True)
class LatentAttack:
    """The adversarial shift of hidden states (arXiv 2407.15549).

    Args:
        attack_layer: block whose output is shifted; 0 is the first.
        epsilon: largest norm of the shift at a token; compare it with that of the hidden states.
        attack_steps: steps of Adam, starting from no shift.
        attack_lr: learning rate of Adam.
    """

    attack_layer: int = 7
    epsilon: float = 2.0
    attack_steps: int = 16
    attack_lr: float = 5e-2

    def __post_init__(self) -> None:
        if self.attack_steps < 1 or self.epsilon < 0:
            raise ValueError(
                f"`attack_steps` {self.attack_steps}, `epsilon` {self.epsilon}: at least 1 step "
                "and a length of at least 0 are needed"
            )


@dataclass(frozen=True)
class Latent:
    """``loss`` under the shift of hidden states that makes it largest (LAT, arXiv 2407.15549).

    The shift is constant in the gradient of the weights. The paper takes four optimiser steps per
    shift; here it is one.
    """

    loss: Loss = field(default_factory=Ascent)
    attack: LatentAttack = field(default_factory=LatentAttack)

    @property
    def needs(self) -> Needs:
        return self.loss.needs

    def caution(self, forward: Forward, batch: Batch) -> str:
        """What the inner loss warns of."""
        return self.loss.caution(forward, batch) if isinstance(self.loss, Cautious) else ""

    def calibrated(self, forward: Forward, batch: Batch) -> tuple[Loss, str]:
        """Choose what the inner loss leaves open."""
        if not isinstance(self.loss, Calibrated):
            return self, ""
        loss, note = self.loss.calibrated(forward, batch)
        return replace(self, loss=loss), note

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        shift = worst_shift(self.loss, self.attack, forward, reference, batch)
        return self.loss(forward.shifted(self.attack.attack_layer, shift, batch), reference, batch)


@torch.enable_grad()
def worst_shift(
    loss: Loss, attack: LatentAttack, forward: Forward, reference: Forward, batch: Batch
) -> Float[Tensor, "B T D"]:
    """The shift that maximises the loss, by projected gradient ascent."""
    with torch.no_grad():  # of which only shape and precision matter
        like = forward.hidden(batch, attack.attack_layer)
    shift = torch.zeros_like(like, requires_grad=True)
    adam = torch.optim.Adam([shift], lr=attack.attack_lr, maximize=True)
    for _ in range(attack.attack_steps):
        moved = forward.shifted(attack.attack_layer, shift, batch)
        value = loss(moved, reference, batch).sum()
        grads: list[Tensor | None] = list(torch.autograd.grad(value, [shift], allow_unused=True))
        if grads[0] is None:
            raise ValueError(
                f"{type(loss).__name__} does not depend on the output of block "
                f"{attack.attack_layer} on the forget texts: choose an earlier `attack_layer`, or "
                "another method"
            )
        shift.grad = grads[0]
        adam.step()
        with torch.no_grad():
            length = shift.norm(dim=-1, keepdim=True).clamp_min(1e-12)
            shift.mul_((attack.epsilon / length).clamp_max(1))
    return shift.detach()


def under_attack(term: Term, attack: LatentAttack, forgets: bool) -> Term:
    """The term with its loss under the adversarial shift."""
    return replace(term, loss=Latent(term.loss, attack))


ENDINGS = {
    "lat": Ending(
        LatentAttack,
        under_attack,
        lab={"attack_layer": 2, "epsilon": 0.5, "attack_steps": 4, "attack_lr": 0.5},
    ),
}
