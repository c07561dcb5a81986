"""Sophia, which divides by an estimate of the curvature.

The Gauss-Newton-Bartlett estimate of Sophia (arXiv 2305.14342, Algorithm 2): draw a label for each
of the B predictions from the model's own distribution, take the gradient g of the *mean*
cross-entropy with these labels, return B g * g.

Why: g = (1/B) sum_b s_b, where s_b, the gradient of one prediction's loss, has expectation 0 over
the drawn label (Bartlett's first identity) and is independent of the others, given the text. So
E[B g^2] = (1/B) sum_b E[s_b^2], and by the second identity E[s_b s_b'] = J_b' (diag p - p p') J_b:
the diagonal of the Gauss-Newton matrix of the mean cross-entropy. B counts predictions, that is
answer tokens; the authors' code passes the tokens of a batch too. With the true labels instead
of drawn ones the expectation of s_b is not 0, and the derivation fails.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ilu.models.token_math import at_least_float32, sequence_nll, with_targets
from ilu.training.optim.protocol import Curvature, Named


def sampled_targets(
    logits: Float[Tensor, "B S V"], uniform: Float[Tensor, "B S"]
) -> Int[Tensor, "B S"]:
    """Tokens drawn from the predicted distributions, given numbers uniform in [0, 1).

    The first token whose cumulated probability exceeds the number.
    """
    total = at_least_float32(logits).softmax(-1).cumsum(-1)
    wanted = uniform.to(total.dtype).unsqueeze(-1) * total[..., -1:]
    found = torch.searchsorted(total, wanted, right=True).squeeze(-1)
    return found.clamp_max(logits.shape[-1] - 1)


def sampled_nll(
    logits: Float[Tensor, "B S V"], targets: Int[Tensor, "B S"], uniform: Float[Tensor, "B S"]
) -> Float[Tensor, " B"]:
    """Summed negative log-likelihood of drawn labels, where ``targets`` count."""
    drawn = sampled_targets(logits.detach(), uniform)
    return sequence_nll(logits, with_targets(targets, drawn))


def gauss_newton_bartlett(gradient: Float[Tensor, "*shape"], count: int) -> Float[Tensor, "*shape"]:
    """B g * g, where g is the gradient of the mean over B = ``count`` drawn labels."""
    return count * gradient.square()


def sophia_step(
    m: Float[Tensor, "*shape"], h: Float[Tensor, "*shape"], *, gamma: float, eps: float
) -> Float[Tensor, "*shape"]:
    """clip(m / max(gamma h, eps), 1) (arXiv 2305.14342, Algorithm 3); h = 0 gives sign(m)."""
    return (m / (gamma * h).clamp_min(eps)).clamp(-1, 1)


@dataclass(frozen=True)
class Sophia:
    """Sophia-G (arXiv 2305.14342): update m, every ``every`` steps h, then take ``sophia_step``.

    Published: betas (0.965, 0.99) and every 10 in the authors' code, eps 1e-12 in the paper, as
    others quote it, with a first beta of 0.96. ``gamma``: the authors' README says 0.01 to 0.1,
    their GPT-2 configurations have 0.03 and 0.05; the paper's value was not checked.

    h starts at 0 without bias correction, as published: in a few hundred steps it stays below its
    limit, which makes steps larger. The first estimate is made before the first step; unlike in the
    authors' code its gradient is not clipped. Without any estimate h = 0: sign descent.
    """

    named: Named
    betas: tuple[float, float] = (0.965, 0.99)
    gamma: float = 0.01
    eps: float = 1e-12
    every: int = 10
    m: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    h: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    def refresh(self, step: int, curvature: Curvature) -> None:
        if step % self.every == 0:
            for name, estimate in zip(self.named, curvature(), strict=True):
                follow(self.h, name, estimate, self.betas[1])

    @torch.no_grad()
    def step(self, step: int, rate: float) -> None:
        for name, p, grad in gradients(self.named):
            m = follow(self.m, name, grad, self.betas[0])
            h = started(self.h, name, grad)
            p.sub_(rate * sophia_step(m, h, gamma=self.gamma, eps=self.eps))

    def state(self) -> dict[str, Tensor]:
        return averages(self.m, self.h)

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        restore_averages(saved, self.named, self.m, self.h)


def gradients(named: Named) -> list[tuple[str, Tensor, Tensor]]:
    """Name, weight and gradient of every weight that has a gradient."""
    return [(name, p, p.grad) for name, p in named.items() if p.grad is not None]


def follow(averages: dict[str, Tensor], name: str, value: Tensor, beta: float) -> Tensor:
    """Update a running average, which starts at 0: x <- beta x + (1 - beta) value."""
    return started(averages, name, value).mul_(beta).add_(value, alpha=1 - beta)


def started(averages: dict[str, Tensor], name: str, like: Tensor) -> Tensor:
    """A running average; 0 if it has no value yet."""
    if name not in averages:
        averages[name] = torch.zeros_like(like)
    return averages[name]


def averages(m: Mapping[str, Tensor], h: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Both averages, named m/WEIGHT and h/WEIGHT."""
    return {f"m/{n}": x for n, x in m.items()} | {f"h/{n}": x for n, x in h.items()}


def restore_averages(
    saved: Mapping[str, Tensor], named: Named, m: dict[str, Tensor], h: dict[str, Tensor]
) -> None:
    """Fill both averages from the result of ``averages``."""
    for key, average in (("m", m), ("h", h)):
        found = {n: p for n, p in named.items() if f"{key}/{n}" in saved}
        average.update({n: saved[f"{key}/{n}"].to(p.device) for n, p in found.items()})
