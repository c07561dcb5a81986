"""Direct preference optimisation of refusals over the answers to be forgotten."""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ilu.data.stream import counterpart
from ilu.methods.forget.npo import check_beta
from ilu.methods.method import Method, Setup, forget_and_retain, refusing
from ilu.types import Batch, Forward, Needs


def dpo(
    gain: Float[Tensor, " B"], reference_gain: Float[Tensor, " B"], *, beta: float
) -> Float[Tensor, " B"]:
    """-(2/beta) log sigmoid(beta (gain - reference_gain)), arXiv 2305.18290 with NPO's factor.

    ``gain`` is the log-probability of the preferred answer minus that of the other. The factor
    2/beta (2404.05868) makes the gradient that of the gain itself at the original model.
    """
    return -(2 / beta) * F.logsigmoid(beta * (gain - reference_gain))


@dataclass(frozen=True)
class DPO:
    """DPO of refusals over the forget answers (arXiv 2305.18290, as TOFU's IDK-DPO, 2401.06121)."""

    beta: float = 0.1
    needs = Needs(reference=True, texts=2)

    def __post_init__(self) -> None:
        check_beta(self.beta)

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        ours, theirs = (answer_margin(f, batch) for f in (forward, reference))
        return dpo(ours, theirs, beta=self.beta)


def answer_margin(model: Forward, batch: Batch) -> Float[Tensor, " B"]:
    """Log-probability of the refusal minus that of the answer to be forgotten."""
    refusal = model.tokens(counterpart(batch, 0, "refusal"))
    return refusal.sum() - model.tokens(batch).sum()


def dpo_recipe(beta: float = 0.1, gamma: float = 1.0) -> Setup:
    """Prefer refusals to the forget answers (DPO, arXiv 2305.18290; TOFU's IDK-DPO, 2401.06121).

    Args:
        beta: strength of the regularisation towards the original model.
        gamma: weight of the retain term.
    """
    return refusing(forget_and_retain(DPO(beta), 1.0, gamma))


METHODS = {
    "dpo": Method(dpo_recipe, 1e-5, 125, "lr and beta: TOFU", lab={"lr": 3e-4, "beta": 0.01}),
}
