"""Peak memory of a training step, from the recipe and the model's configuration alone.

Everything is counted in tensors that live at once: weights, gradients, optimiser state, the copy
that a reference needs, what a rule holds, what a forward pass keeps for the backward pass, and the
blocks of the output layer. Activations are those of a Llama-like block in Hugging Face's
implementation; models of other shapes are off by what their blocks keep beyond that. Not counted:
the runtime's own memory (some hundred MiB on CUDA), fragments, and files mapped while loading.
"""

import math
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from ilu.forward import blocks, named_trained
from ilu.lora import adapted_layers
from ilu.losses.head import BLOCK, DEVICE_BLOCK, KEPT
from ilu.objective import Term
from ilu.recipe import Recipe
from ilu.robust.invariance import Square
from ilu.robust.rules import plain
from ilu.savings import held_around
from ilu.types import GradRule

STATES = {"adamw": 8.0, "sophia": 8.0, "soul": 8.0, "adamw8bit": 2.03, "adamw-bf16": 2.03}
"""Bytes of optimiser state for each trained weight: two moments in float32, or in 8 bits."""


HELD = {"plain": 1, "Square": 2, "L1": 2, "SAM": 3, "GradientPenalty": 3, "LookAhead": 4,
        "RandomSmoothing": 5, "Penalty": 6, "CurvaturePenalty": 6, "TAR": 6,
        "DisruptionMasking": 7}  # fmt: skip
"""How many gradients a rule holds at most, its own included; a test counts them."""


class Memory(NamedTuple):
    """Bytes at the worst moment of a step, by what they are for."""

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
        """All of them."""
        return sum(self)


@dataclass(frozen=True)
class Shape:
    """What of a model decides memory. ``first`` is the lowest block with a trained weight."""

    weights: int
    trained: int
    largest: int
    linear: int
    block: int
    first: int
    layers: int
    hidden: int
    inner: int
    queries: int
    vocabulary: int
    head_trained: bool
    all_trained: bool


def shape_of(model: nn.Module, recipe: Recipe) -> Shape:
    """Count the weights of a model, which may lie on the meta device."""
    config: Any = model.config
    named = named_trained(model, recipe.optim.parameters)
    sizes = {n: p.numel() for n, p in named.items()}
    if recipe.lora:
        adapted = adapted_layers(model, recipe.lora, recipe.optim.parameters)
        sides = {n: model.get_submodule(n).weight.shape for n in adapted}
        sizes = {n: recipe.lora.rank * sum(s) for n, s in sides.items()}  # pyright: ignore
    output: Any = model.get_output_embeddings()  # pyright: ignore[reportCallIssue]
    every = list(model.parameters())
    size = config.hidden_size
    heads = config.num_attention_heads
    return Shape(
        weights=sum(p.numel() for p in every),
        trained=sum(sizes.values()),
        largest=max(sizes.values()),
        linear=sum(p.numel() for p in blocks(model).parameters() if p.ndim == 2),
        block=max(sum(p.numel() for p in one.parameters()) for one in blocks(model)),
        first=0 if recipe.lora else lowest(sizes, len(blocks(model))),
        layers=len(blocks(model)),
        hidden=size,
        inner=getattr(config, "intermediate_size", None) or 4 * size,
        queries=heads * (getattr(config, "head_dim", None) or size // heads),
        vocabulary=config.vocab_size,
        head_trained=any(p is output.weight for p in named.values()) and not recipe.lora,
        all_trained=len(sizes) == len(every),
    )


def lowest(trained: Any, layers: int) -> int:
    """The lowest block that a gradient must reach: 0 if weights outside of blocks are trained."""
    found = [re.search(r"\.(\d+)\.", name) for name in trained]
    numbers = [int(m[1]) for m in found if m is not None and int(m[1]) < layers]
    below = any("embed" in name or "wte" in name for name in trained)
    return 0 if below or not numbers else min(numbers)


def peak_memory(recipe: Recipe, shape: Shape, length: int, device: str = "cuda") -> Memory:
    """The most that a step needs, with examples of ``length`` tokens that all take a loss."""
    optim = recipe.optim
    width = 2 if optim.optimizer == "adamw-bf16" else 4
    gradient = float(width * shape.trained)
    fixed = {
        "weights": float(width * shape.weights),
        "optimizer": STATES[optim.optimizer] * shape.trained,
        "reference": reference(recipe, shape, width, device),
    }
    fused = optim.fused_backward
    moments = [] if fused else [step_end(shape, width, optim.optimizer, device)]
    for i, (name, term) in enumerate(recipe.objective.items()):
        split = (optim.micro_batch or math.inf) < recipe.data[term.on].batch_size
        sizes = {"every": gradient, "largest": float(width * shape.largest)}
        around = held_around(name, recipe.objective, **sizes, split=split)
        before, own = around if fused else (i > 0 and gradient, gradient)
        moments.append(moment(term, before, own, recipe, shape, length, device))
    if optim.average_from is not None:
        fixed["optimizer"] += 4.0 * shape.trained
    return max((Memory(**fixed, **m) for m in moments), key=lambda m: m.total)


def needs(term: Term) -> bool:
    """Whether a term compares with the original model."""
    return term.loss.needs_reference


def reference(recipe: Recipe, shape: Shape, width: int, device: str) -> float:
    """The original weights, or of those in host memory a block and what lies outside of blocks."""
    if not any(needs(term) for term in recipe.objective.values()):
        return 0.0
    there = shape.weights - (shape.layers - 1) * shape.block
    away = recipe.optim.offload_reference and device != "cpu"
    return float(width * (min(shape.trained, there) if away else shape.trained))


def step_end(shape: Shape, width: int, optimizer: str, device: str) -> dict[str, float]:
    """The optimiser's step: all gradients; on a GPU one more vector of intermediate results."""
    lists = device != "cpu" and optimizer == "adamw"
    extra = width * (shape.trained if lists else 2 * shape.largest)
    return {"gradients": float(width * shape.trained), "rules": float(extra),
            "activations": 0.0, "head": 0.0}  # fmt: skip


def moment(
    term: Term,
    before: float,
    gradient: float,
    recipe: Recipe,
    shape: Shape,
    length: int,
    device: str,
) -> dict[str, float]:
    """The end of a term's forward pass, or the end of its backward pass, whichever is larger."""
    examples = recipe.data[term.on].batch_size
    tokens = length * min(examples, recipe.optim.micro_batch or examples)
    plainly = term.rule is plain or isinstance(term.rule, Square)
    rules = 0.0 if plainly else (held_by(term.rule) - 1) * gradient
    kept, block = activations(term, tokens, recipe, shape)
    top = head(term, tokens, shape, device)
    # A block that is computed again comes when the output layer is done.
    kept, top = (kept + block, 0.0) if block > top else (kept, top)
    backward = gradient if not before else 4.0 * shape.largest
    if kept + top >= backward:
        return {"gradients": float(before), "rules": rules, "activations": kept, "head": top}
    one = kept / max(1, shape.layers)
    return {"gradients": before + backward, "rules": rules, "activations": one, "head": 0.0}


def activations(term: Term, tokens: int, recipe: Recipe, shape: Shape) -> tuple[float, float]:
    """What the blocks keep for the backward pass, from the lowest trained one upwards.

    Of each token: 2 norms keep their input, the normalised input and their output; attention its
    queries, keys, values (repeated for groups) and output; the MLP four of its inner width. The
    second number is what one block needs while it is computed again.
    """
    half = recipe.optim.precision == "bfloat16" or recipe.optim.optimizer == "adamw-bf16"
    autocast = recipe.optim.precision == "bfloat16" and recipe.optim.optimizer != "adamw-bf16"
    small = 2 if half else 4
    kept_by_norms = 6 if shape.all_trained else 4 if recipe.lora else 2
    d, large = shape.hidden, 2 if recipe.optim.optimizer == "adamw-bf16" else 4
    norms = kept_by_norms * large * d + (2 * small * d if autocast else 0)
    block = tokens * (norms + 4 * small * shape.queries + 4 * small * shape.inner)
    last = getattr(term.loss, "layer", shape.layers - 1) + 1
    count = max(1, last - shape.first)
    entering = tokens * large * d
    kept, again = (count * entering, block) if recipe.optim.recompute else (count * block, 0)
    cast = 2.0 * shape.linear if autocast else 0.0
    return kept + 3.0 * entering + cast, float(again)


def head(term: Term, tokens: int, shape: Shape, device: str) -> float:
    """Rows and blocks of the output layer, and its gradient; nothing where states are compared."""
    if hasattr(term.loss, "layer"):
        return 0.0
    logits = tokens * shape.vocabulary
    block = min(logits, BLOCK if device == "cpu" else DEVICE_BLOCK)
    kept = logits if logits <= KEPT else 0
    weight = shape.vocabulary * shape.hidden if shape.head_trained else 0
    return 4.0 * (kept + 3 * block + 2 * tokens * shape.hidden + weight)


def held_by(rule: GradRule) -> int:
    """How many gradients a rule holds; one that is not known counts like the worst that is."""
    name = getattr(rule, "__name__", type(rule).__name__)
    return HELD.get(name, max(HELD.values()))
