"""AdamW of torch, and AdamW of torchao with 8-bit moments."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ilu.system.seeds import seeded
from ilu.training.optim.protocol import Curvature, Named, by_name

BETAS = (0.9, 0.999)
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class AdamW:
    """AdamW (arXiv 1711.05101) with moments in the precision of the weights."""

    named: Named
    inner: torch.optim.AdamW

    def refresh(self, step: int, curvature: Curvature) -> None:
        pass

    def step(self, step: int, rate: float) -> None:
        self.inner.param_groups[0]["lr"] = rate
        self.inner.step()

    def state(self) -> dict[str, Tensor]:
        found = by_name(self.named, self.inner.state)
        return {f"{key}/{n}": s[key] for n, s in found.items() for key in ("step", *MOMENTS)}

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        for name, p in self.named.items():
            if f"step/{name}" in saved:
                moments = {key: saved[f"{key}/{name}"].to(p.device) for key in MOMENTS}
                self.inner.state[p] = {"step": saved[f"step/{name}"], **moments}


def adamw(named: Named, betas: tuple[float, float] | None) -> AdamW:
    """AdamW with the usual betas if none are given."""
    params = list(named.values())
    return AdamW(named, torch.optim.AdamW(params, betas=betas or BETAS, weight_decay=0.0))


@dataclass(frozen=True)
class AdamW8bit:
    """AdamW with moments in 8 bits (arXiv 2110.02861, by torchao).

    Tensors with fewer than 4096 entries, or a number of entries that 256 does not divide, have
    moments in the precision of the weights. bfloat16 weights are rounded stochastically. torchao
    uses the global generators, so every step seeds them: with even numbers, ``shrink`` with odd.
    """

    named: Named
    inner: Any

    def refresh(self, step: int, curvature: Curvature) -> None:
        pass

    def step(self, step: int, rate: float) -> None:
        device = next(iter(self.named.values())).device
        self.inner.param_groups[0]["lr"].fill_(rate)
        with seeded(2 * step, device), uncompiled(device):
            self.inner.step()

    def state(self) -> dict[str, Tensor]:
        found = by_name(self.named, self.inner.state)
        steps = {f"step/{n}": s["step"] for n, s in found.items()}
        parts = (pack(f"{key}/{n}", s[key]) for n, s in found.items() for key in MOMENTS)
        return {k: v for part in parts for k, v in part.items()} | steps

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        for name, p in self.named.items():
            if f"step/{name}" in saved:
                moments = {key: unpack(f"{key}/{name}", saved, p) for key in MOMENTS}
                self.inner.state[p] = {"step": saved[f"step/{name}"], **moments}


def adamw8bit(named: Named, betas: tuple[float, float] | None) -> AdamW8bit:
    """torchao's optimiser; only bfloat16 weights are rounded stochastically."""
    from torchao.optim import AdamW8bit as Inner

    inner = Inner(
        list(named.values()), betas=betas or BETAS, weight_decay=0.0, bf16_stochastic_round=True
    )
    return AdamW8bit(named, inner)


def uncompiled(device: torch.device) -> AbstractContextManager[object]:
    """Disable torch.compile except on CUDA: elsewhere it is slow and may lack a compiler."""
    if device.type == "cuda":
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


def pack(name: str, moment: Tensor) -> dict[str, Tensor]:
    """A moment as plain tensors: codes and scales if it has 8 bits."""
    from torchao.optim.subclass_8bit import OptimState8bit

    if not isinstance(moment, OptimState8bit):
        return {name: moment}
    return {f"codes/{name}": moment.codes, f"scale/{name}": moment.scale}


def unpack(name: str, saved: Mapping[str, Tensor], p: Tensor) -> Tensor:
    """The moment of the weight ``p`` that was packed."""
    from torchao.optim.subclass_8bit import OptimState8bit

    if name in saved:
        return saved[name].to(p.device)
    codes, scale = saved[f"codes/{name}"], saved[f"scale/{name}"]
    signed, block = name.startswith("exp_avg/"), codes.numel() // scale.numel()
    moment = OptimState8bit.zeros(p.shape, signed, block, p.device, dtype=p.dtype)
    moment.codes.copy_(codes)
    moment.scale.copy_(scale)
    return moment
