"""SGD of torch with momentum."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ilu.training.optim.protocol import Curvature, Named, by_name

MOMENTUM = 0.9
BUFFER = "momentum_buffer"


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent; its momentum is the first of ``betas``.

    The step is proportional to the gradient, unlike that of adaptive optimisers.
    """

    named: Named
    inner: torch.optim.SGD

    def refresh(self, step: int, curvature: Curvature) -> None:
        pass

    def step(self, step: int, rate: float) -> None:
        self.inner.param_groups[0]["lr"] = rate
        self.inner.step()

    def state(self) -> dict[str, Tensor]:
        found = by_name(self.named, self.inner.state)
        return {f"{BUFFER}/{name}": state[BUFFER] for name, state in found.items()}

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        for name, p in self.named.items():
            if (key := f"{BUFFER}/{name}") in saved:
                self.inner.state[p] = {BUFFER: saved[key].to(p.device)}


def sgd(named: Named, betas: tuple[float, float] | None) -> SGD:
    """SGD with momentum 0.9 if no betas are given."""
    momentum = betas[0] if betas else MOMENTUM
    return SGD(named, torch.optim.SGD(list(named.values()), lr=0.0, momentum=momentum))
