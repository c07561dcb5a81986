"""Similarity of the hidden states of two models."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ilu.data.stream import collate
from ilu.models.forward import every_hidden
from ilu.types import LM, Example


def linear_cka(x: Float[Tensor, "N P"], y: Float[Tensor, "N Q"]) -> float | None:
    """Linear centred kernel alignment (arXiv 1905.00414); None where one side does not vary.

    |Y'X|_F^2 / (|X'X|_F |Y'Y|_F) for centred states of the same N tokens. It is 1 for states that
    differ by a rotation and a scale. It is biased upwards unless N is much larger than the width:
    for independent Gaussian states it is about width / (N + width).
    """
    x, y = (z.double() - z.double().mean(0) for z in (x, y))
    scale = (x.T @ x).norm() * (y.T @ y).norm()
    return ((y.T @ x).square().sum() / scale).item() if scale > 0 else None


def layer_cka(
    before: LM, after: LM, examples: Sequence[Example], batch_size: int = 32
) -> dict[str, Any]:
    """CKA of the outputs of every block at every token except the first of each text.

    The state of the first token does not depend on the text and often has a huge norm.
    """
    x, y = (token_states(lm, examples, batch_size) for lm in (before, after))
    layers = [linear_cka(a, b) for a, b in zip(x, y, strict=True)]
    return {"layers": layers, "tokens": len(x[0]), "width": x[0].shape[1]}


@torch.no_grad()
def token_states(lm: LM, examples: Sequence[Example], batch_size: int) -> list[Tensor]:
    """Outputs of every block, one row per token."""
    device = next(lm.model.parameters()).device
    states: list[list[Tensor]] = []
    for start in range(0, len(examples), batch_size):
        batch = collate(examples[start : start + batch_size]).to(device)
        inside = batch.attention_mask.bool()
        inside[:, 0] = False
        states.append([h[inside].float().cpu() for h in every_hidden(lm.model, batch)])
    return [torch.cat(parts) for parts in zip(*states, strict=True)]
