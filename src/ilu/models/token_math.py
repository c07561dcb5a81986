"""From logits to log-probabilities. The only place that reads IGNORE."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ilu.types import IGNORE, Tokens


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
    p_logits: Float[Tensor, "*S V"], q_logits: Float[Tensor, "*S V"]
) -> Float[Tensor, "*S"]:
    """KL(p || q) of each two predictions."""
    log_p, log_q = (at_least_float32(z).log_softmax(-1) for z in (p_logits, q_logits))
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def token_jsd(
    p_logits: Float[Tensor, "*S V"], q_logits: Float[Tensor, "*S V"]
) -> Float[Tensor, "*S"]:
    """Jensen-Shannon divergence of each two predictions, in nats: symmetric, at most log 2."""
    log_p, log_q = (at_least_float32(z).log_softmax(-1) for z in (p_logits, q_logits))
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    sides = [(x.exp() * (x - log_m)).sum(-1) for x in (log_p, log_q)]
    return 0.5 * (sides[0] + sides[1])


def one_hot_jsd(tokens: Tokens) -> Float[Tensor, "B S"]:
    """Jensen-Shannon divergence of each prediction to its target token; 0 where none counts.

    With q the target's probability: log 2 + (q log q - (1 + q) log(1 + q)) / 2.
    """
    q = tokens.logp.exp()
    jsd = math.log(2) + 0.5 * (q * tokens.logp - (1 + q) * torch.log1p(q))
    return jsd.where(tokens.valid, 0.0)


def token_cross_entropy(
    p_logits: Float[Tensor, "*S V"], q_logits: Float[Tensor, "*S V"]
) -> Float[Tensor, "*S"]:
    """-sum p log q per position. A token with p = 0 adds 0, also where its logit is -inf."""
    p, log_q = at_least_float32(p_logits).softmax(-1), at_least_float32(q_logits).log_softmax(-1)
    return -(p * log_q.where(p > 0, 0.0)).sum(-1)


def one_hot_targets(
    targets: Int[Tensor, "B S"], logits: Float[Tensor, "B S V"]
) -> Float[Tensor, "B S V"]:
    """1 at each target that counts, in the shape of the logits."""
    found = torch.zeros_like(at_least_float32(logits), requires_grad=False)
    return found.scatter_(-1, targets.clamp_min(0).unsqueeze(-1), 1.0) * answered(
        targets
    ).unsqueeze(-1)


def with_targets(targets: Int[Tensor, "B S"], other: Int[Tensor, "B S"]) -> Int[Tensor, "B S"]:
    """Other tokens in the places that count."""
    return other.where(answered(targets), targets)


def answered(targets: Int[Tensor, "B S"]) -> Bool[Tensor, "B S"]:
    """Where a target counts."""
    return targets != IGNORE


def masked_mean(x: Float[Tensor, "B S"], valid: Bool[Tensor, "B S"]) -> Float[Tensor, " B"]:
    """Mean over the valid positions of each example; 0 for an example that has none."""
    return x.where(valid, 0.0).sum(-1) / valid.sum(-1).clamp_min(1)


def at_least_float32(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Half precision becomes float32; float64 stays, so that tests can be exact."""
    return x if x.element_size() >= 4 else x.float()
