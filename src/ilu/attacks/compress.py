"""Attacks that change the weights at one stroke: no data, no training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ilu.models.load import check_name, load_model, pinned
from ilu.models.lora import linear_layers
from ilu.system.optional import need
from ilu.types import LM, Example, Metric, Reached, Steps

BITS = (2, 3, 4, 5, 6, 7, 8)


@runtime_checkable
class Change(Protocol):
    """What becomes of the weights."""

    def check(self, model: nn.Module) -> None:
        """Raise ValueError if ``model`` cannot be changed so."""
        ...

    def __call__(self, model: nn.Module) -> None:
        """Change ``model`` in place; the weights stay float32."""
        ...


@dataclass(frozen=True)
class WeightEdit:
    """Any of the changes below as an attack: it needs no data and is over after one stroke."""

    change: Change
    goals: Mapping[str, Metric] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """None."""
        return 0

    def data(self, lm: LM) -> Sequence[Example]:
        """Nothing."""
        self.change.check(lm.model)
        return ()

    def __call__(self, lm: LM, *, reached: Reached, progress: Steps) -> None:
        self.change(lm.model)
        reached("end")


@dataclass(frozen=True)
class Quantise:
    """Round the linear layers to ``bits``, as quantising a model for use does (arXiv 2410.16454).

    Symmetric, to the nearest, by torchao: one scale for each row, or for each ``group`` of inputs.
    The rounded weights are kept as float32, so that every metric runs on them. Embeddings and the
    output layer are left, as bitsandbytes leaves them.
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
        linear_weights(model)

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> None:
        for weight, transposed in linear_weights(model):
            rows = weight.T if transposed else weight
            rows.copy_(rounded(rows, self.bits, self.group or rows.shape[1]))


@dataclass(frozen=True)
class Prune:
    """Set this ``fraction`` of each linear layer to zero, the smallest weights (arXiv 1506.02626).

    Not the output layer. Of equal weights the first are taken.
    """

    fraction: float

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise ValueError(f"pruning {self.fraction} of the weights: it must be from 0 to 1")

    def check(self, model: nn.Module) -> None:
        linear_weights(model)

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> None:
        for weight, _ in linear_weights(model):
            smallest = weight.abs().flatten().argsort(stable=True)
            zeros = smallest[: round(self.fraction * weight.numel())]
            weight.view(-1)[zeros] = 0


@dataclass(frozen=True)
class Noise:
    """Add normal noise to every weight: ``scale`` times the root mean square of its tensor."""

    scale: float
    seed: int = 0

    def __post_init__(self) -> None:
        if self.scale < 0:
            raise ValueError(f"noise of scale {self.scale}: it must be at least 0")

    def check(self, model: nn.Module) -> None:
        """Every model can take it."""

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        for p in model.parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.add_(noise.to(p), alpha=self.scale * p.square().mean().sqrt().item())


@dataclass(frozen=True)
class Interpolate:
    """Go this ``share`` of the way back to the ``original``: (1 - s) theta + s theta_o.

    Who has the model from before, or another that knows, may average them (arXiv 2203.05482).
    """

    original: str
    share: float = 0.5
    revision: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"a share of {self.share} of the original: it must be from 0 to 1")

    def check(self, model: nn.Module) -> None:
        check_name(self.original)

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> None:
        loaded = load_model(self.original, revision=pinned(self.original, self.revision)).model
        other, ours = dict(loaded.named_parameters()), dict(model.named_parameters())
        if {n: p.shape for n, p in other.items()} != {n: p.shape for n, p in ours.items()}:
            raise ValueError(f"{self.original} is not of the same architecture as this model")
        for name, p in ours.items():
            p.lerp_(other[name].to(p), self.share)


def linear_weights(model: nn.Module) -> list[tuple[nn.Parameter, bool]]:
    """Weights of the linear layers but for the output, each with whether its rows are inputs."""
    inside = [model.get_submodule(name) for name in linear_layers(model)]
    found = [(m.weight, not isinstance(m, nn.Linear)) for m in inside]
    weights = [(w, turned) for w, turned in found if isinstance(w, nn.Parameter)]
    if not weights:
        raise ValueError("this model has no linear layer that could be changed")
    return weights


def rounded(weight: Float[Tensor, "out in"], bits: int, group: int) -> Float[Tensor, "out in"]:
    """``weight`` at the nearest of 2^bits evenly spaced values around 0, which hold the largest."""
    from torchao.quantization.quant_primitives import (
        MappingType,
        choose_qparams_affine,
        dequantize_affine,
        quantize_affine,
    )

    width = weight.shape[1]
    # Zeros change no group's scale, so a last group may be shorter.
    whole = nn.functional.pad(weight.float(), (0, math.ceil(width / group) * group - width))
    limits = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    block: Any = (1, group)  # annotated as if weights had one dimension
    kind = torch.int8
    scale, zero = choose_qparams_affine(
        whole, MappingType.SYMMETRIC_NO_CLIPPING_ERR, block, kind, *limits
    )
    codes = quantize_affine(whole, block, scale, zero, kind, *limits)
    return dequantize_affine(codes, block, scale, zero, kind, *limits)[:, :width]
