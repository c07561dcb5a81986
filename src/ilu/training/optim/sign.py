"""Sign descent: every weight moves equally far."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ilu.training.optim.protocol import Curvature, Named

BETA = 0.9


@dataclass(frozen=True)
class SignDescent:
    """theta <- theta - lr sign(m), m <- beta m + (1 - beta) g (optimiser grade, arXiv 2510.00761).

    beta is the first of ``betas``, 0.9 if none are given. Adam's direction m / sqrt(v) has the
    sign of m, so that this is 1-bit Adam as well; beta = 0 is signSGD (arXiv 1802.04434).
    """

    named: Named
    beta: float = BETA
    m: dict[str, Float[Tensor, "..."]] = field(default_factory=dict[str, Tensor])

    def refresh(self, step: int, curvature: Curvature) -> None:
        pass

    @torch.no_grad()
    def step(self, step: int, rate: float) -> None:
        for name, p in self.named.items():
            if p.grad is not None:
                m = self.m.setdefault(name, torch.zeros_like(p))
                m.lerp_(p.grad, 1 - self.beta)
                p.sub_(rate * m.sign())

    def state(self) -> dict[str, Tensor]:
        return dict(self.m)

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        self.m.update({n: saved[n].to(p.device) for n, p in self.named.items() if n in saved})
