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


@torch.no_grad()
def seen_step(w: Float[Tensor, " N"], step: float) -> float:
    """The part of a step of this size that rounding to bfloat16 leaves, on average over weights.

    <r(w + d) - r(w), d> / <d, d> for d = +-step, where r rounds to nearest: 1 for steps far above
    the spacing of bfloat16 at w. For smaller ones it is 0 where w is a bfloat16 number, and above 1
    where w lies half-way between two, as many numbers do that were stored in float16.
    """
    up, down = ((w + d).bfloat16().float() - w.bfloat16().float() for d in (step, -step))
    return ((up - down).double().mean() / (2 * step)).item()


def has_bfloat16_units(device: str) -> bool:
    """Whether a processor multiplies bfloat16 matrices itself; True where this is not known."""
    if device != "cpu" or not (known := getattr(torch.cpu, "get_capabilities", dict)()):
        return True
    return any("bf16" in name and there for name, there in known.items())


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
