"""From logits to log-probabilities. The only place that reads IGNORE."""

from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ilu.types import IGNORE


class TokenLogp(NamedTuple):
    """Log-probability of each target token (0 where it does not count), and where it counts."""

    logp: Float[Tensor, "B S"]
    valid: Bool[Tensor, "B S"]


def token_logp(logits: Float[Tensor, "B S V"], targets: Int[Tensor, "B S"]) -> TokenLogp:
    """Log-probability, in nats and float32 or better, of each target token."""
    logits, valid = at_least_float32(logits), targets != IGNORE
    picked = logits.gather(-1, targets.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    return TokenLogp((picked - logits.logsumexp(-1)).where(valid, 0.0), valid)


def token_entropy(logits: Float[Tensor, "B S V"]) -> Float[Tensor, "B S"]:
    """Entropy of each predicted distribution, in nats."""
    logp = at_least_float32(logits).log_softmax(-1)
    return -(logp.exp() * logp).sum(-1)


def sequence_nll(
    logits: Float[Tensor, "B S V"], targets: Int[Tensor, "B S"]
) -> Float[Tensor, " B"]:
    """Negative log-likelihood of each whole answer: the sum over its tokens."""
    return -token_logp(logits, targets).logp.sum(-1)


def mean_nll(logits: Float[Tensor, "B S V"], targets: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
    """Negative log-likelihood per answer token, averaged within each example."""
    logp, valid = token_logp(logits, targets)
    return -masked_mean(logp, valid)


def token_kl(
    p_logits: Float[Tensor, "B S V"], q_logits: Float[Tensor, "B S V"], valid: Bool[Tensor, "B S"]
) -> Float[Tensor, " B"]:
    """KL(p || q) per valid token, averaged within each example."""
    log_p, log_q = (at_least_float32(z).log_softmax(-1) for z in (p_logits, q_logits))
    return masked_mean((log_p.exp() * (log_p - log_q)).sum(-1), valid)


def answered(targets: Int[Tensor, "B S"]) -> Bool[Tensor, "B S"]:
    """Where a target counts."""
    return targets != IGNORE


def masked_mean(x: Float[Tensor, "B S"], valid: Bool[Tensor, "B S"]) -> Float[Tensor, " B"]:
    """Mean over the valid positions of each example; 0 for an example that has none."""
    return x.where(valid, 0.0).sum(-1) / valid.sum(-1).clamp_min(1)


def at_least_float32(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Half precision becomes float32; float64 stays, so that tests can be exact."""
    return x if x.element_size() >= 4 else x.float()
