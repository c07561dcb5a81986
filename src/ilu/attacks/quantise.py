"""Quantisation, as it is common for inference on small devices."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ilu.attacks.bnb_rounding import BnbRounding, Format
from ilu.attacks.kind import AttackInputs, AttackKind, number
from ilu.attacks.weight_edit import WeightEdit, matrices_to_change
from ilu.system.optional import need

BITS = (2, 3, 4, 5, 6, 7, 8)


@dataclass(frozen=True)
class Quantise:
    """Quantise the weight matrices, those of experts included, to ``bits`` (arXiv 2410.16454).

    Symmetric rounding to nearest by torchao, with one scale per row or per ``group`` of inputs. The
    rounded weights are stored as float32, so that every metric runs on them. Embeddings and the
    output layer are not quantised, as in bitsandbytes.
    """

    bits: int = 8
    group: int | None = None

    def __post_init__(self) -> None:
        if self.bits not in BITS or (self.group is not None and self.group < 1):
            raise ValueError(
                f"quantising to {self.bits} bits in groups of {self.group}: bits must be from 2 to "
                "8, a group at least 1 or left out"
            )

    def check(self, model: nn.Module) -> None:
        need("torchao", "torchao", "quantising")
        matrices_to_change(model)

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> None:
        for matrix in matrices_to_change(model):
            for rows in matrix.each():
                rows.copy_(rounded(rows, self.bits, self.group or rows.shape[1]))


def rounded(weight: Float[Tensor, "out in"], bits: int, group: int) -> Float[Tensor, "out in"]:
    """``weight`` rounded to 2^bits evenly spaced values around 0 that cover its range."""
    from torchao.quantization.quant_primitives import (
        MappingType,
        choose_qparams_affine,
        dequantize_affine,
        quantize_affine,
    )

    width = weight.shape[1]
    # Zeros do not change the scale of a group, so the last group may be shorter.
    padded = nn.functional.pad(weight.float(), (0, math.ceil(width / group) * group - width))
    limits = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    block: Any = (1, group)  # annotated as if weights had one dimension
    kind = torch.int8
    scale, zero = choose_qparams_affine(
        padded, MappingType.SYMMETRIC_NO_CLIPPING_ERR, block, kind, *limits
    )
    codes = quantize_affine(padded, block, scale, zero, kind, *limits)
    return dequantize_affine(codes, block, scale, zero, kind, *limits)[:, :width]


def quantise(argument: str, inputs: AttackInputs) -> WeightEdit:
    """Quantise the weight matrices to 2 to 8 bits, or as bitsandbytes does: nf4, int8.

    Up to 4 bits there is a scale for every 32 inputs.
    """
    forms: tuple[Format, ...] = get_args(Format)
    for form in forms:
        if argument == form:
            return WeightEdit(BnbRounding(form))
    try:
        bits = number(argument)
    except ValueError as error:
        raise ValueError(f"{error}: write bits, {' or '.join(forms)}") from None
    if bits != int(bits):
        raise ValueError(f"{bits:g} bits: write a whole number, as in quantise:4")
    return WeightEdit(Quantise(int(bits), group=32 if bits <= 4 else None))


ATTACKS: Mapping[str, AttackKind] = {"quantise": AttackKind(quantise, example="4")}
