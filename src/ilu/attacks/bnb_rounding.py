"""Weights rounded as bitsandbytes rounds them: NF4 in blocks, and int8 by rows."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ilu.attacks.weight_edit import matrices_to_change

Format = Literal["nf4", "int8"]
BLOCK = 64
"""Weights that share a scale in NF4, as ``BitsAndBytesConfig(load_in_4bit=True)`` has it."""
TINY = 1e-30
"""Smallest scale, so that zeros stay zeros."""
LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
)  # fmt: skip
"""The 16 values of NormalFloat4: quantiles of a normal distribution, scaled to [-1, 1], with an
exact 0 (arXiv 2305.14314, appendix E)."""


@dataclass(frozen=True)
class BnbRounding:
    """Round the weight matrices to ``form`` as bitsandbytes does, and store them as float32.

    The same matrices as ``Quantise``: bitsandbytes leaves embeddings and the output layer as they
    are. Only the weights are rounded. LLM.int8 also rounds the activations, all but the outliers
    among them, when it multiplies; that is left out.
    """

    form: Format

    def check(self, model: nn.Module) -> None:
        matrices_to_change(model)

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> None:
        rounded = {"nf4": nf4, "int8": int8}[self.form]
        for matrix in matrices_to_change(model):
            for rows in matrix.each():
                rows.copy_(rounded(rows))


def nf4(weight: Float[Tensor, "out in"], block: int = BLOCK) -> Float[Tensor, "out in"]:
    """w -> s q(w / s), s = max |w| of its block, q the nearest of ``LEVELS`` (arXiv 2305.14314).

    Blocks are consecutive weights, row after row; the last may be shorter. The scales stay
    float32, without double quantisation, which is also off by default in Transformers.
    """
    levels = torch.tensor(LEVELS, device=weight.device)
    flat = weight.float().flatten()
    blocks = nn.functional.pad(flat, (0, -len(flat) % block)).view(-1, block)
    scale = blocks.abs().amax(1, keepdim=True)
    middles = (levels[1:] + levels[:-1]) / 2
    codes = torch.bucketize(blocks * (1 / scale.clamp_min(TINY)), middles)
    return (levels[codes] * scale).flatten()[: len(flat)].view(weight.shape)


def int8(weight: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
    """w -> s round(w / s), s = max |w| of the row / 127, w in float16 (arXiv 2208.07339)."""
    half = weight.half().float()
    scale = half.abs().amax(1, keepdim=True)
    codes = (half * (127 / scale.clamp_min(TINY))).round()
    return codes * scale / 127
