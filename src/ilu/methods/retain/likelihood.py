"""Retain losses on predictions: likelihood, or divergence from the original model."""

from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from ilu.models.lm_head_loss import per_token, tokens_of
from ilu.models.token_math import answered, masked_mean, token_jsd, token_kl, with_targets
from ilu.types import Batch, Forward, Needs


@dataclass(frozen=True)
class NLL:
    """Next-token cross-entropy, averaged within each example (GradDiff, arXiv 2401.06121)."""

    needs = Needs()

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        return -forward.tokens(batch).mean()


@dataclass(frozen=True)
class KL:
    """KL(original || model) over labelled tokens (TOFU, arXiv 2401.06121).

    The released codes also average over padding and prompt, or use a cross-entropy, which is not
    zero at the original model.
    """

    needs = Needs(reference=True, logits=7, chunked=True)

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        out, ref = forward(batch), reference(batch)
        return masked_mean(per_token(token_kl, ref, out), answered(out.targets))


@dataclass(frozen=True)
class JSD:
    """Jensen-Shannon divergence to the original model over labelled tokens (arXiv 2509.02820)."""

    needs = Needs(reference=True, logits=9, chunked=True)

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        out, ref = forward(batch), reference(batch)
        return masked_mean(per_token(token_jsd, ref, out), answered(out.targets))


@dataclass(frozen=True)
class HardLabels:
    """Cross-entropy on the original model's most likely tokens (ELM, arXiv 2410.02760)."""

    needs = Needs(reference=True, logits=1, chunked=True)

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        out, ref = forward(batch), reference(batch)
        likeliest = with_targets(out.targets, per_token(partial(torch.argmax, dim=-1), ref))
        return -tokens_of(replace(out, targets=likeliest)).mean()
