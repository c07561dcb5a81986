"""Training on the retain set only, optionally with an L1 penalty."""

from ilu.methods.method import Method, Setup
from ilu.methods.retain.likelihood import NLL
from ilu.methods.robust.l1 import L1
from ilu.training.objective import Term


def finetune() -> Setup:
    """Train only on the retain set, without a forget term (arXiv 1911.04933)."""
    return Setup({"retain": Term(NLL(), on="retain")})


def l1_sparse(l1: float = 1e-4) -> Setup:
    """Train on the retain set with an L1 penalty (l1-sparse unlearning, arXiv 2304.04934).

    Args:
        l1: weight of the sum of absolute weights.
    """
    return Setup({"retain": Term(NLL(), on="retain", rule=L1(l1))})


METHODS = {
    "finetune": Method(finetune, 1e-5, 125, "ours", lab={"lr": 3e-3, "steps": 200}),
    "l1-sparse": Method(l1_sparse, 1e-5, 125, "ours", lab={"lr": 1e-3, "steps": 200, "l1": 3e-6}),
}
