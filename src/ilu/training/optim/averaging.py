"""Averaging weights over the last steps."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ilu.models.token_math import at_least_float32
from ilu.types import Weights


@dataclass(frozen=True)
class Average:
    """Mean of every ``every``-th iterate from ``start`` on (WA, arXiv 2502.05374); None: no mean.

    Iterate t is the weights after t steps; published are 100, 105, ..., 125. The mean is computed
    in float32 or better, and equals weights that did not move bit for bit.
    """

    named: Weights
    start: int | None = None
    every: int = 5
    mean: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    @torch.no_grad()
    def add(self, iterate: int) -> None:
        """Add the current weights if ``iterate`` is one of those to average."""
        if self.start is None or iterate < self.start or (iterate - self.start) % self.every:
            return
        count = (iterate - self.start) // self.every + 1
        for name, p in self.named.items():
            x = at_least_float32(p.detach())
            mean = self.mean.setdefault(name, x)
            self.mean[name] = mean + (x - mean) / count

    @torch.no_grad()
    def put(self) -> None:
        """Set the weights to the mean."""
        for name, mean in self.mean.items():
            p = self.named[name]
            p.copy_(mean.where(mean != p, p))  # keeps -0, which equals 0

    def state(self) -> dict[str, Tensor]:
        """The mean so far; its number of iterates follows from the step."""
        return self.mean

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Restore a mean."""
        self.mean.update({n: mean.to(self.named[n].device) for n, mean in saved.items()})
