"""The numbers of a model and a recipe that determine memory; works on the meta device."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from ilu.models.blocks import blocks, text_config
from ilu.models.lora import adapted_layers, base_layers
from ilu.models.weight_names import named_trained
from ilu.runs.recipe import Recipe

LAST = r"\.(o_proj|out_proj|c_proj|dense|down_proj|dense_4h_to_h|fc2)\.weight"
"""The last layers of attention and of the MLP, whose input is not the output of a norm."""


class Memory(NamedTuple):
    """Bytes at the peak of a step, by purpose."""

    weights: float
    gradients: float
    optimizer: float
    reference: float
    rules: float
    activations: float
    head: float
    gathered: float = 0.0

    @property
    def total(self) -> float:
        """Sum over all purposes."""
        return sum(self)


@dataclass(frozen=True)
class Shape:
    """The numbers of a model that determine memory.

    ``with_gradient``: number of weights with a gradient, trained or only perturbed by rules.
    ``rounded``: weights of 4 bits. ``first``: lowest block with a gradient. ``kept``: what each
    block saves for its gradient. ``up_to``: weights with a gradient in or below each block.
    """

    weights: int
    trained: int
    with_gradient: int
    rounded: int
    largest: int
    linear: int
    block: int
    first: int
    layers: int
    hidden: int
    inner: int
    queries: int
    vocabulary: int
    head_gradient: bool
    kept: tuple["Kept", ...]
    up_to: tuple[int, ...]


def shape_of(model: nn.Module, recipe: Recipe) -> Shape:
    """Count the weights of a model, which may be on the meta device."""
    config = text_config(model)
    trained = trained_sizes(model, recipe)
    sizes = {**trained, **beyond(model, recipe)}
    base = base_layers(model) if recipe.lora and recipe.lora.base_bits else []
    output: Any = model.get_output_embeddings()  # pyright: ignore[reportCallIssue]
    every, depth = list(model.parameters()), len(blocks(model))
    size = config.hidden_size
    heads = setting(config, "num_attention_heads")
    if not isinstance(heads, int):
        raise ValueError(
            f"the memory of {type(model).__name__} cannot be predicted: the prediction is for "
            "models with attention in every block. Try a run of one step (`steps` 1) instead; "
            "its cost.json has the peak"
        )
    return Shape(
        weights=sum(p.numel() for p in every) + (sum(trained.values()) if recipe.lora else 0),
        trained=sum(trained.values()),
        with_gradient=sum(sizes.values()),
        rounded=sum(m.weight.numel() for m in base),
        largest=max([*sizes.values(), *(m.weight.numel() for m in base)]),
        linear=sum(p.numel() for p in blocks(model).parameters() if p.ndim == 2),
        block=max(sum(p.numel() for p in one.parameters()) for one in blocks(model)),
        first=lowest(sizes, depth),
        layers=depth,
        hidden=size,
        inner=getattr(config, "intermediate_size", None) or 4 * size,
        queries=heads * (setting(config, "head_dim") or size // heads),
        vocabulary=config.vocab_size,
        head_gradient=any(p is output.weight for n, p in model.named_parameters() if n in sizes),
        up_to=tuple(in_or_below(i, sizes, depth) for i in range(depth)),
        kept=tuple(kept_by(one, prefix, sizes) for prefix, one in named_blocks(model)),
    )


def setting(config: Any, name: str) -> Any:
    """A number of the configuration; the largest where the blocks differ, None without one."""
    try:
        return getattr(config, name, None)
    except Exception:  # Transformers has an error of its own for a number that differs by block
        numbers = (getattr(each, name, None) for each in config.per_layer_config)
        return max((n for n in numbers if isinstance(n, int)), default=None)


class Kept(NamedTuple):
    """Tensors per token that a block saves for its gradient, of the model's or the MLP's width."""

    wide: int
    inner: int


def named_blocks(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The prefix of the names of weights, and the block, of every block."""
    names = {id(m): n for n, m in model.named_modules()}
    return ((f"{names[id(one)]}.", one) for one in blocks(model))


def kept_by(one: nn.Module, prefix: str, with_gradient: Collection[str]) -> Kept:
    """What a Llama-like block saves: a layer saves its input only if its weight has a gradient.

    Both norms save their input and, if their weights have a gradient, the normalised input; their
    outputs are saved by the layers that read them. The MLP saves its gate before and after the
    activation, the factor of the gate, and their product for its last layer.
    """
    found = {
        n
        for n, _ in one.named_parameters()
        if {prefix + n, adapters(prefix + n)} & {*with_gradient}
    }
    norms = sum(p.ndim == 1 and "weight" in n for n, p in one.named_parameters() if n in found)
    layers = {n for n in found if one.get_parameter(n).ndim > 1}
    last = {n for n in layers if re.search(LAST, n)}
    attention = {n for n in layers - last if "att" in n}
    mlp = layers - last - attention
    wide = 2 + min(2, norms) + bool(attention) + bool(mlp)
    return Kept(wide, 3 + any("att" not in n for n in last))


def trained_sizes(model: nn.Module, recipe: Recipe) -> dict[str, int]:
    """Name of a trained weight -> number of entries; with adapters, the entries of both."""
    if not recipe.lora:
        return sizes_of(model, recipe.optim.parameters)
    adapted = adapted_layers(model, recipe.lora, recipe.optim.parameters)
    sides = {n: model.get_submodule(n).weight.shape for n in adapted}
    rank = recipe.lora.rank
    return {adapters(f"{n}.weight"): rank * sum(s) for n, s in sides.items()}  # pyright: ignore


def adapters(weight: str) -> str:
    """The name of the adapters of a weight."""
    return f"{weight}, adapters"


def beyond(model: nn.Module, recipe: Recipe) -> dict[str, int]:
    """The same for the weights that only rules perturb."""
    return {} if recipe.optim.perturbed is None else sizes_of(model, recipe.optim.perturbed)


def sizes_of(model: nn.Module, pattern: str) -> dict[str, int]:
    """Sizes of the weights whose name contains a match."""
    return {n: p.numel() for n, p in named_trained(model, pattern).items()}


def lowest(names: Iterable[str], layers: int) -> int:
    """The lowest block with a gradient: 0 if an embedding has one."""
    found = min(block_of(name, layers) for name in names)
    return found if found < layers else 0


def in_or_below(block: int, sizes: Mapping[str, int], layers: int) -> int:
    """Number of entries in a block or below it."""
    return sum(size for name, size in sizes.items() if block_of(name, layers) <= block)


def block_of(name: str, layers: int) -> int:
    """The block of a weight: the first for embeddings, ``layers`` for others outside of blocks."""
    if "embed" in name or "wte" in name or "wpe" in name:
        return 0
    found = re.search(r"\.(\d+)\.", name)
    return int(found[1]) if found and int(found[1]) < layers else layers
