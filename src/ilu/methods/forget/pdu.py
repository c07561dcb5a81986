"""Logit-margin flattening: the largest logit is pushed to the mean logit."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from ilu.methods.method import Method, Setup
from ilu.methods.retain.likelihood import NLL
from ilu.models.token_math import answered, at_least_float32, masked_mean
from ilu.training.objective import Term
from ilu.training.schedules import Dual
from ilu.types import Batch, Forward, Needs


def margin(logits: Float[Tensor, "B S V"], targets: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
    """mean_t (max_v z_tv - mean_v z_tv)^2 over answer tokens (arXiv 2506.05314)."""
    z = at_least_float32(logits)
    return masked_mean((z.amax(-1) - z.mean(-1)).square(), answered(targets))


@dataclass(frozen=True)
class Flatten:
    """The forget term of PDU, primal-dual unlearning (arXiv 2506.05314).

    The released code builds its mask from unshifted labels, so it flattens one position too late.
    """

    needs = Needs(logits=4.25)

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        out = forward(batch)
        return margin(out.logits, out.targets)


def pdu(retain_limit: float = 1.5, dual_rate: float = 1.0, gamma: float = 50.0) -> Setup:
    """Flatten the logits, with a bound on the retain loss (PDU, arXiv 2506.05314).

    Args:
        retain_limit: largest allowed retain loss, in nats per token.
        dual_rate: learning rate of the retain term's weight (the dual variable).
        gamma: initial weight of the retain term.
    """
    retain = Term(NLL(), on="retain", weight=Dual(gamma, dual_rate, retain_limit))
    return Setup({"forget": Term(Flatten(), on="forget"), "retain": retain})


METHODS = {
    "pdu": Method(
        pdu,
        1e-5,
        125,
        "all: MUSE News; choose the retain limit by the retain loss",
        lab={"lr": 3e-4, "retain_limit": 1.0, "dual_rate": 1.0, "gamma": 1.0},
    ),
}
