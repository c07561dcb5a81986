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
    """JSD of each answer token to a refusal token in its place (arXiv 2509.02820).

    The refusal's tokens are repeated over the whole answer; the paper has those of "No idea". At
    most log 2 per token, so it cannot run away.
    """

    needs = Needs()

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        out = forward(batch)
        cycled = cycle(counterpart(batch, 0, "refusal").labels[:, 1:], out.targets)
        tokens = tokens_of(replace(out, targets=cycled))
        return masked_mean(one_hot_jsd(tokens), tokens.valid)


def cycle(refusal: Int[Tensor, "B R"], targets: Int[Tensor, "B S"]) -> Int[Tensor, "B S"]:
    """Put the refusal's tokens, again and again, where the answer's tokens are."""
    given, wanted = answered(refusal), answered(targets)
    place = (wanted.cumsum(-1) - 1).clamp_min(0) % given.sum(-1, keepdim=True).clamp_min(1)
    start = given.int().argmax(-1, keepdim=True)
    return with_targets(targets, refusal.gather(-1, start + place))


def jensun_recipe(gamma: float = 1.0) -> Setup:
    """Bounded divergences to a refusal and to the original model (JensUn, arXiv 2509.02820).

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
