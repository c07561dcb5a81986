"""A block of logits read once on a GPU: running softmax forward, gradient in its place backward.

PyTorch takes several float32 passes for each. Liger-Kernel 0.8.5 has Triton kernels for
log-probabilities per token, but not for the entropy, which the invariance penalty needs; its one
function with entropy rounds that to the states' precision and knows neither bias nor soft cap.

Triton comes with torch for CUDA. Where it is missing, on other devices, in float64, with
``ILU_TRITON=0``, and on a GPU where the kernels fail or give other numbers, PyTorch does it all.
"""

from __future__ import annotations  # ``tl`` is not there yet

import os
import warnings
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, no_type_check

import torch
from jaxtyping import Float, Int
from torch import Tensor

TILE, WARPS = 4096, 8
"""At most so many logits of a row at a time, and groups of 32 threads that share them."""
tl: Any = None
"""``triton.language``, once it is wanted; kernels look for it among the globals of their module."""


@no_type_check
def softmax_of_row(z, y, state, columns, stride, rows, ENTROPY: tl.constexpr, WIDE: tl.constexpr):
    """Take one row of a block into m, s, u and z_y, the columns of ``state``."""
    row = tl.program_id(0).to(tl.int64)
    z, m, s, u = z + row * stride, state + row, state + rows + row, state + 2 * rows + row
    top, total, slope = tl.load(m), tl.load(s), tl.load(u)
    for start in range(0, columns, WIDE):
        at = start + tl.arange(0, WIDE)
        each = tl.load(z + at, mask=at < columns, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(top, tl.max(each, 0))
        # -inf less -inf is not a number, and neither is e^-inf times -inf: 0 in the limit.
        fall = tl.where(top == float("-inf"), 0.0, top - higher)
        above = tl.where(each == float("-inf"), each, each - higher)
        e = tl.exp(above)
        if ENTROPY:
            slope = tl.exp(fall) * (slope + fall * total)
            slope += tl.sum(tl.where(each == float("-inf"), 0.0, above) * e, 0)
        total = tl.exp(fall) * total + tl.sum(e, 0)
        top = higher
    tl.store(m, top)
    tl.store(s, total)
    tl.store(u, slope)
    place, picked = tl.load(y + row), state + 3 * rows + row
    found = tl.load(z + place, mask=(place >= 0) & (place < columns), other=0.0)
    tl.store(picked, tl.load(picked) + found.to(tl.float32))


@no_type_check
def gradient_of_tile(z, out, y, of_row, columns, stride, SCALE: tl.constexpr, CAP: tl.constexpr,
                     ENTROPY: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """[k = y] a - p_k (a + b (log p_k + H)), through cap and scale; a row's lse, H, a and b."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    inside, of_row = at < columns, of_row + 4 * row
    each = tl.load(z + row * stride + at, mask=inside, other=float("-inf")).to(tl.float32)
    logp, a = each - tl.load(of_row), tl.load(of_row + 2)
    factor = a
    if ENTROPY:
        shift = tl.where(each == float("-inf"), 0.0, logp + tl.load(of_row + 1))
        factor = a + tl.load(of_row + 3) * shift
    grad = tl.where(at == tl.load(y + row), a, 0.0) - tl.exp(logp) * factor
    if CAP is not None:
        grad *= 1 - (each / CAP) * (each / CAP)
    tl.store(out + row * stride + at, (grad * SCALE).to(out.dtype.element_ty), mask=inside)


@cache
def compiled() -> tuple[Any, Any]:
    """Both kernels, to be compiled at their first call."""
    global tl
    tl, jit = import_module("triton.language"), import_module("triton").jit
    return jit(softmax_of_row), jit(gradient_of_tile)


def add_block(
    z: Float[Tensor, "R C"], y: Int[Tensor, " R"], state: Float[Tensor, "4 R"], *, entropy: bool
) -> None:
    """Take a block into m, s, u and z_y of its rows; ``y`` outside of its columns picks nothing."""
    how = {"ENTROPY": entropy, "WIDE": width(z), "num_warps": WARPS}
    with torch.cuda.device_of(z):
        compiled()[0][(len(z),)](z, y, state, z.shape[1], z.stride(0), state.stride(0), **how)


def logit_gradient(
    z: Float[Tensor, "R C"],
    y: Int[Tensor, " R"],
    of_row: Float[Tensor, "R 4"],
    out: Float[Tensor, "R C"],
    *,
    entropy: bool,
    scale: float = 1.0,
    cap: float | None = None,
) -> None:
    """Write to ``out``, which may be ``z``; ``of_row`` holds lse, H and the gradients of both."""
    assert out.stride() == z.stride()
    wide = width(z)
    how = {"SCALE": scale, "CAP": cap, "ENTROPY": entropy, "WIDE": wide, "num_warps": WARPS}
    grid = (len(z), -(-z.shape[1] // wide))
    with torch.cuda.device_of(z):
        compiled()[1][grid](z, out, y, of_row.contiguous(), z.shape[1], z.stride(0), **how)


def width(z: Tensor) -> int:
    """A power of two, as Triton wants it, and no wider than need be."""
    return min(TILE, 1 << (z.shape[1] - 1).bit_length())


def serves(z: Tensor) -> bool:
    """Whether these logits are read by the kernels."""
    fit = z.device.type == "cuda" and z.dtype != torch.float64
    return fit and os.environ.get("ILU_TRITON") != "0" and trusted(z.device, z.dtype)


@cache
def trusted(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels run there and give what PyTorch does: tried once, not assumed."""
    if find_spec("triton") is None:
        return False
    try:
        wrong = "" if agrees(device, dtype) else "the numbers are wrong"
    except Exception as error:  # the compiler, the driver and the kernel have their own
        wrong = f"{type(error).__name__}: {error}"
    if wrong:
        warnings.warn(f"no Triton kernels for {dtype} on {device}: {wrong}", stacklevel=2)
    return not wrong


def agrees(device: torch.device, dtype: torch.dtype) -> bool:
    """Value and gradient of log p_y + H on rows that end within a tile."""
    z = torch.linspace(-4, 4, 2 * (TILE + 100)).view(2, -1).to(device, dtype)
    y, exact = torch.tensor([77, TILE + 99], device=device), z.double().requires_grad_()
    logp = exact.log_softmax(-1)
    value = logp.gather(1, y[:, None])[:, 0] - (logp.exp() * logp).sum(-1)
    (slope,) = torch.autograd.grad(value.sum(), exact)
    m, s, u, picked = state = torch.zeros(4, 2, device=device)
    m.fill_(-torch.inf)
    add_block(z, y, state, entropy=True)
    lse, h = m + s.log(), s.log() - u / s
    logit_gradient(z, y, torch.stack([lse, h, *torch.ones_like(state[:2])], 1), z, entropy=True)
    near = torch.allclose((picked - lse + h).double(), value, rtol=1e-4)
    return near and torch.allclose(z.double(), slope, rtol=1e-2, atol=1e-5)
