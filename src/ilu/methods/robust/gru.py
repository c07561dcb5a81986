"""GRU: the forget gradient without its part against the retain gradient (arXiv 2503.09117)."""

from dataclasses import dataclass, replace

import torch

from ilu.methods.ending import Ending
from ilu.methods.forget.npo import NPO
from ilu.methods.method import Method, Retain, Setup, forget_and_retain
from ilu.methods.retain.likelihood import NLL
from ilu.methods.robust.perturb import dot
from ilu.training.objective import Plain, Term
from ilu.types import Copies, GradHere, GradOf, GradRule, Grads, Params, Slope


def rectified(g: Grads, r: Grads) -> Grads:
    """g - min(0, <g, r>) / |r|^2 r, the closest point to g that has <g, r> >= 0 (2503.09117).

    g and r are the gradients of the forget and of the retain loss. If <g, r> is negative, a step
    along -g raises the retain loss to first order. The inner products are over all trained weights.
    ``g`` is changed in place.
    """
    against = torch.stack([dot(a, b) for a, b in zip(g, r, strict=True)]).sum().clamp_max(0)
    size = torch.stack([dot(b, b) for b in r]).sum().clamp_min(1e-30)
    for a, b in zip(g, r, strict=True):
        a.sub_((against / size) * b)
    return g


@dataclass(frozen=True)
class GRU:
    """Forget gradient without its part against the retain gradient (GRU, arXiv 2503.09117).

    The released code replaces r by a running mean, 0.8 of the newest retain gradient and 0.2 of
    the mean so far. Here it is the gradient on one new batch, so that a step depends only on the
    weights. ``inner`` is the rule for the forget term itself.

    Args:
        agree_with: the stream whose loss a step may not raise.
    """

    agree_with: str = "retain"
    inner: GradRule = Plain()
    power = None

    @property
    def copies(self) -> Copies:
        most, own, other, added = self.inner.copies
        return Copies(max(2, most), own, max(1, other), added)

    def reads(self) -> tuple[str, ...]:
        return (*self.inner.reads(), self.agree_with)

    def __call__(self, params: Params, here: GradHere, grad_of: GradOf, step: int) -> Slope:
        value, g = self.inner(params, here, grad_of, step)
        return Slope(value, rectified(g, grad_of(NLL(), self.agree_with).grads))


@dataclass(frozen=True)
class AgreeWith:
    """The forget gradient without its part against the retain gradient (GRU, arXiv 2503.09117).

    The retain gradient is that of one new batch; the released code uses a running mean.

    Args:
        agree_with: the stream whose loss a step may not raise, to first order.
    """

    agree_with: str = "retain"


def rectify(term: Term, settings: AgreeWith, forgets: bool) -> Term:
    """The term with its gradient rectified."""
    return replace(term, rule=GRU(settings.agree_with, term.rule))


def gru(beta: float = 0.1, gamma: float = 0.0, retain_loss: Retain = "nll") -> Setup:
    """NPO whose gradient loses its part against the retain gradient (GRU, arXiv 2503.09117).

    For the loss of another method, use the ending -gru.

    Args:
        beta: how early the loss of an answer saturates.
        gamma: weight of a retain term, 0 in the released code: the data is used all the same.
        retain_loss: likelihood, or a divergence from the original model: nll, kl, jsd.
    """
    setup = forget_and_retain(NPO(beta), 1.0, gamma, retain_loss)
    forget = rectify(setup.objective["forget"], AgreeWith(), True)
    return replace(setup, objective={**setup.objective, "forget": forget})


ENDINGS = {"gru": Ending(AgreeWith, rectify)}
METHODS = {
    "gru": Method(
        gru,
        1e-5,
        125,
        "lr, beta: NPO; no retain term: released code; 125 steps: WMDP",
        lab={"lr": 3e-4, "steps": 60, "batch_size": 16, "beta": 0.01, "gamma": 1.0},
    ),
}
