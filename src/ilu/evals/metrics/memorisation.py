"""Memorisation of an answer, as pure functions of log-probabilities and greedy hits."""

import math

from jaxtyping import Bool, Float
from torch import Tensor


def probability(logp: Float[Tensor, " S"]) -> float | None:
    """exp of the mean log-probability per token: P(a|q)^(1/|a|) of TOFU (arXiv 2401.06121)."""
    return math.exp(logp.double().mean().item()) if len(logp) else None


def exact_memorisation(first: Bool[Tensor, " S"]) -> float | None:
    """Share of tokens that are the likeliest ones given the true prefix (arXiv 2205.10770)."""
    return first.double().mean().item() if len(first) else None


def extraction_strength(first: Bool[Tensor, " S"]) -> float | None:
    """1 - k/n: greedy decoding from the first k of n tokens reproduces all the others.

    arXiv 2012.07805, as in arXiv 2506.12618. It does so exactly if every token from k on is the
    likeliest given the true prefix, so no text has to be generated. Where no token is right,
    open-unlearning returns 1/n, which is 1 for an answer of one token; here it is 0.
    """
    if not len(first):
        return None
    right = 0
    for hit in reversed(first.tolist()):
        if not hit:
            break
        right += 1
    return right / len(first)
