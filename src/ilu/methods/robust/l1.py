"""An L1 penalty on the weights, for sparse unlearning."""

from dataclasses import dataclass

from ilu.system.distributed import full_tensor
from ilu.training.objective import Plain
from ilu.types import Copies, GradHere, GradOf, GradRule, Params, Slope


@dataclass(frozen=True)
class L1:
    """Add ``l1`` times the sum of absolute weights: l1-sparse unlearning (arXiv 2304.04934).

    ``inner`` is the rule for the term itself.
    """

    l1: float = 1e-4
    inner: GradRule = Plain()
    power = None

    @property
    def copies(self) -> Copies:
        return self.inner.copies._replace(most=max(2, self.inner.copies.most))

    def reads(self) -> tuple[str, ...]:
        return self.inner.reads()

    def __call__(self, params: Params, here: GradHere, grad_of: GradOf, step: int) -> Slope:
        value, grads = self.inner(params, here, grad_of, step)
        size = sum(full_tensor(p.detach().abs().sum()).item() for p in params)
        added = tuple(g + self.l1 * p.detach().sign() for g, p in zip(grads, params, strict=True))
        return Slope(value + self.l1 * size, added)
