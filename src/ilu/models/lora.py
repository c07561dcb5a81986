"""Low-rank adapters (LoRA, arXiv 2106.09685) through PEFT."""

import re
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from ilu.models.matrices import is_linear_map, linear_modules, weight_matrices
from ilu.models.mode import mode_restored
from ilu.models.qlora import check_layers, rounded
from ilu.system.optional import need, quiet_peft
from ilu.system.seeds import seeded

ALL_LINEAR = "all-linear"
ADAPTERS = r"\.lora_[AB]\."
"""Pattern of the names of adapter weights; no other weights of a model match it."""


@dataclass(frozen=True)
class Lora:
    """Train W + (``alpha`` / ``rank``) B A instead of W, without dropout (arXiv 2106.09685).

    B starts at 0, so the adapted model is at first the model itself. ``target`` is a regular
    expression on the names of linear layers, or all-linear. Of these, the layers whose weight
    the recipe would train get an adapter, but never the output layer, which may share its weight.

    With ``base_bits`` 4 all linear layers but the output have NF4 weights meanwhile, which never
    change (QLoRA, arXiv 2305.14314, without its paged optimiser); the reference has them as well.
    The update is then added to the weights from before the rounding, so that what is saved is no
    rounded model; it is not exactly the one that was trained.
    """

    rank: int
    alpha: float
    target: str = ALL_LINEAR
    base_bits: int | None = None

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0:
            raise ValueError(
                f"LoRA of rank {self.rank} and alpha {self.alpha}: the rank must be at least 1 and "
                "alpha above 0"
            )
        if self.base_bits not in (None, 4):
            raise ValueError(
                f"a base model in {self.base_bits} bits: it can have 4, or give `quantise_base` 0"
            )


def adapted_layers(model: nn.Module, lora: Lora, pattern: str) -> list[str]:
    """Names of the layers that get an adapter; ``pattern`` matches the weights a recipe trains."""
    need("peft", "lora", "LoRA")
    linear = linear_layers(model)
    target = "" if lora.target == ALL_LINEAR else lora.target
    found = [n for n in linear if re.search(target, n) and re.search(pattern, f"{n}.weight")]
    if lora.base_bits:
        base_layers(model)
    if not found:
        raise ValueError(
            f"LoRA has no layer to adapt: of the {len(linear)} linear layers none matches both the "
            f"target {lora.target!r} and the trained weights {pattern!r}; names look like: "
            f"{', '.join(linear[:3])}"
        )
    return found


def linear_layers(model: nn.Module) -> list[str]:
    """Names of the linear layers inside a model that it calls and whose output can be changed.

    Some models read ``layer.weight`` themselves, as Mamba does of ``dt_proj``: an adapter of such a
    layer would do nothing. Some subclasses return more than the linear map, as the router of Llama
    4 does. Both are tried on a few tokens.
    """
    layers = [*linear_modules(model)]
    layers = [n for n in layers if not (model_type(model) in FUSED and n.endswith(FUSED_LAYER))]
    if any(p.is_meta for p in model.parameters()):
        return layers
    called = {without_numbers(n) for n in called_layers(model, layers)}
    return [n for n in layers if without_numbers(n) in called]


FUSED, FUSED_LAYER = {"mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h"}, ".out_proj"
"""Models whose fast kernels read the weight of this layer, which PEFT therefore does not adapt."""


def model_type(model: Any) -> str:
    """The architecture by the name of Transformers."""
    return str(model.config.model_type)


def without_numbers(name: str) -> str:
    """The name that a layer has in every block and every expert."""
    return re.sub(r"\d+", "N", name)


@torch.no_grad()
def called_layers(model: nn.Module, layers: Sequence[str]) -> set[str]:
    """Those of ``layers`` that are called when the model reads a few tokens, and map linearly."""
    called: set[str] = set()

    def keep(name: str) -> Any:
        def hook(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if is_linear_map(layer, inputs, output):
                called.add(name)

        return hook

    hooks = [model.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    ids = torch.arange(8, device=next(model.parameters()).device)[None] % 2
    try:
        with mode_restored(model):
            model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return called


def warn_of_coverage(model: nn.Module, layers: Sequence[str], lora: Lora, pattern: str) -> None:
    """Warn if adapters leave out much of what is to be trained, such as experts in one tensor."""
    target = "" if lora.target == ALL_LINEAR else lora.target
    matrices = weight_matrices(model)
    sizes = {
        n: m.weight.numel()
        for n, m in matrices.items()
        if re.search(target, n) and re.search(pattern, n)
    }
    left = {n: size for n, size in sizes.items() if n.removesuffix(".weight") not in layers}
    share = 1 - sum(left.values()) / max(sum(sizes.values()), 1)
    if share < MOST_ADAPTED:
        warnings.warn(
            f"LoRA adapts layers with {share:.0%} of the weights that are to be trained: weights "
            f"that are no linear layers of their own, such as {max(left, key=lambda n: left[n])}, "
            "have no adapter",
            stacklevel=2,
        )


MOST_ADAPTED = 0.9
"""Share of the weights below which a warning says what has no adapter."""


class Trained(NamedTuple):
    """What to train: a model, and the pattern of the names of its trained weights."""

    model: nn.Module
    pattern: str


@contextmanager
def adapting(model: nn.Module, lora: Lora | None, pattern: str, *, seed: int) -> Generator[Trained]:
    """Yield what to train: the model, or with ``lora`` its adapters, which are merged afterwards.

    If training fails, the adapters are removed and ``model`` is unchanged.
    """
    if lora is None:
        yield Trained(model, pattern)
        return
    adapted: Any = None
    with mode_restored(model):
        try:
            with rounded(base_layers(model) if lora.base_bits else []):
                adapted = adapt(model, lora, pattern, seed=seed)
                adapted.eval()  # PEFT makes its wrapper and its layers in training mode
                yield Trained(adapted, ADAPTERS)
        except BaseException:
            if adapted is not None:
                adapted.unload()
            raise
        merge(adapted)


def base_layers(model: nn.Module) -> list[nn.Linear]:
    """The layers that are rounded; ValueError if they cannot be."""
    return check_layers({name: model.get_submodule(name) for name in linear_layers(model)})


def adapt(model: nn.Module, lora: Lora, pattern: str, *, seed: int) -> nn.Module:
    """Add adapters to ``model`` in place; return the PEFT model, whose adapters can be trained."""
    layers = adapted_layers(model, lora, pattern)
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType] # any number works
        target_modules=layers,
        lora_dropout=0.0,
        fan_in_fan_out=not isinstance(model.get_submodule(layers[0]), nn.Linear),
    )
    untyped: Any = model
    with quiet_peft(), seeded(seed, next(model.parameters()).device):
        return get_peft_model(untyped, config)


@torch.no_grad()
def merge(adapted: nn.Module) -> None:
    """Add the adapters to the weights, in float32; the model has no adapters afterwards."""
    untyped: Any = adapted
    model: nn.Module = untyped.float().merge_and_unload()
    model.requires_grad_(True)
