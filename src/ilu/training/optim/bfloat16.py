"""Weights in bfloat16."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def to_bfloat16(model: nn.Module) -> None:
    """Make all weights bfloat16; buffers, such as rotary frequencies, need their precision."""
    for p in model.parameters():
        p.data = p.data.bfloat16()


@torch.no_grad()
def fits_bfloat16(model: nn.Module) -> bool:
    """Whether bfloat16 represents all weights exactly."""
    return all(torch.equal(p, p.bfloat16().to(p.dtype)) for p in model.parameters())


def stochastic_bfloat16(
    x: Float[Tensor, "*shape"], generator: torch.Generator
) -> Float[Tensor, "*shape"]:
    """Round float32 stochastically to bfloat16; the expectation is the number itself.

    A bfloat16 number is unchanged. Rounding to nearest would undo every change below half the
    spacing, such as weight decay at the learning rates of unlearning.
    """
    noise = torch.randint(
        0, 1 << 16, x.shape, generator=generator, device=x.device, dtype=torch.int32
    )
    return ((x.view(torch.int32) + noise) & -0x10000).view(torch.float32).bfloat16()
