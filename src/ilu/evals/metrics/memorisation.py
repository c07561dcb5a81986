"""How much of an answer a model has by heart: pure functions of what it says of its tokens."""

import math

from jaxtyping import Bool, Float
from torch import Tensor


def probability(logp: Float[Tensor, " S"]) -> float | None:
    """exp of the mean log-probability per token: P(a|q)^(1/|a|) of TOFU (arXiv 2401.06121)."""
    return math.exp(logp.double().mean().item()) if len(logp) else None


def exact_memorisation(first: Bool[Tensor, " S"]) -> float | None:
    """Share of tokens that are the likeliest after those before them (arXiv 2205.10770)."""
    return first.double().mean().item() if len(first) else None


def extraction_strength(first: Bool[Tensor, " S"]) -> float | None:
    """1 - k/n: k of n tokens must be shown until greedy decoding gives all others right.

    arXiv 2012.07805, as in arXiv 2506.12618. From k on greedy decoding gives the answer exactly if
    every token from k on is the likeliest after the true ones, so no text has to be generated.
    open-unlearning gives 1/n where nothing is right, so 1 to an answer of one token; here it is 0.
    """
    if not len(first):
        return None
    right = 0
    for hit in reversed(first.tolist()):
        if not hit:
            break
        right += 1
    return right / len(first)
