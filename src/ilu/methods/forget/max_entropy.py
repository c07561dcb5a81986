"""Maximum entropy of the predictions on the forget set."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ilu.methods.method import Method, Setup, forget_and_retain
from ilu.models.token_math import masked_mean
from ilu.types import Batch, Forward, Needs


@dataclass(frozen=True)
class MaxEntropy:
    """-H(p) per answer token, the loss of TAR after its adversary (arXiv 2408.00761)."""

    needs = Needs(entropy=True)

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        tokens = forward.tokens(batch, entropy=True)
        return -masked_mean(tokens.entropy, tokens.valid)


def entropy(gamma: float = 1.0) -> Setup:
    """Maximise the entropy of the predictions; with -tar it is TAR (arXiv 2408.00761).

    Args:
        gamma: weight of the retain term.
    """
    return forget_and_retain(MaxEntropy(), 1.0, gamma)


METHODS = {
    "entropy": Method(entropy, 2e-5, 125, "lr: TAR", lab={"lr": 1e-3, "gamma": 1.0}),
}
