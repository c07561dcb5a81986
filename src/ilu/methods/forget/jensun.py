"""JensUn: Jensen-Shannon divergence to a fixed refusal."""

from dataclasses import dataclass, replace

from jaxtyping import Float, Int
from torch import Tensor

from ilu.data.stream import counterpart
from ilu.methods.method import Method, Setup, forget_and_retain, with_one_refusal
from ilu.models.lm_head_loss import tokens_of
from ilu.models.token_math import answered, masked_mean, one_hot_jsd, with_targets
from ilu.types import Batch, Forward, Needs


@dataclass(frozen=True)
class JensUn:
    """JSD between the prediction of each answer token and a refusal token (arXiv 2509.02820).

    The tokens of the refusal ("No idea" in the paper) are repeated over the full answer. The loss
    is at most log 2 per token.
    """

    needs = Needs()

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        out = forward(batch)
        cycled = cycle(counterpart(batch, 0, "refusal").labels[:, 1:], out.targets)
        tokens = tokens_of(replace(out, targets=cycled))
        return masked_mean(one_hot_jsd(tokens), tokens.valid)


def cycle(refusal: Int[Tensor, "B R"], targets: Int[Tensor, "B S"]) -> Int[Tensor, "B S"]:
    """Repeat the refusal's tokens over the positions of the answer's tokens."""
    in_refusal, in_answer = answered(refusal), answered(targets)
    place = (in_answer.cumsum(-1) - 1).clamp_min(0) % in_refusal.sum(-1, keepdim=True).clamp_min(1)
    start = in_refusal.int().argmax(-1, keepdim=True)
    return with_targets(targets, refusal.gather(-1, start + place))


def jensun_recipe(gamma: float = 1.0) -> Setup:
    """JSD to a refusal on the forget set and to the original on the retain set (arXiv 2509.02820).

    Args:
        gamma: weight of the retain term.
    """
    return replace(forget_and_retain(JensUn(), 1.0, gamma, "jsd"), pairing=with_one_refusal)


METHODS = {
    "jensun": Method(
        jensun_recipe,
        8e-6,
        125,
        "lr and weights: released code",
        lab={"lr": 3e-4, "gamma": 0.1, "steps": 100},
    ),
}
