"""A model whose linear layers are rounded to 4 bits while its adapters are trained (QLoRA)."""

from collections.abc import Generator
from contextlib import contextmanager
from math import gcd
from typing import Any

from torch import Tensor, nn

from ilu.system.optional import need

BLOCK, SCALES = 64, 256
"""Weights that share a scale, and at most so many scales that share one (arXiv 2305.14314)."""
BYTES = 0.5 + 1 / BLOCK + 4 / (BLOCK * SCALES)
"""Of a weight: 4 bits, and its part of both kinds of scales."""


@contextmanager
def rounded(layers: list[nn.Linear]) -> Generator[None]:
    """Give ``layers`` weights of 4 bits (NF4, arXiv 2305.14314, by torchao), then their own again.

    Scales are rounded as well. Their own weights are in main memory meanwhile and come back to the
    bit. A layer is made float32 when it computes, forward and backward, and not kept so.
    """
    kept = [(layer, layer.weight) for layer in layers]
    devices = [weight.device for _, weight in kept]
    try:
        for layer, weight in kept:
            layer.weight = in_4_bits(weight)
            weight.data = weight.data.cpu()
        yield
    finally:
        for (layer, weight), device in zip(kept, devices, strict=True):
            weight.data = weight.data.to(device)
            layer.weight = weight


def in_4_bits(weight: Tensor) -> nn.Parameter:
    """A weight that cannot be trained, in 4 bits."""
    from torchao.quantization import to_nf4

    made: Any = to_nf4(weight.detach().contiguous(), BLOCK, gcd(weight.numel() // BLOCK, SCALES))
    return nn.Parameter(made, requires_grad=False)


def check_layers(layers: dict[str, nn.Module]) -> list[nn.Linear]:
    """The layers, if all of them can have 4 bits."""
    need("torchao", "torchao", "a base model in 4 bits")
    found = [m for m in layers.values() if isinstance(m, nn.Linear)]
    bad = [n for n, m in layers.items() if not isinstance(m, nn.Linear) or m.weight.numel() % BLOCK]
    if bad:
        raise ValueError(
            f"layer {bad[0]} cannot have 4 bits: it must be an ordinary linear layer whose number "
            f"of weights {BLOCK} divides. Leave out `quantise_base`"
        )
    return found
