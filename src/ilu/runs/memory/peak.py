"""Peak memory of a training step, from the recipe and the model's configuration alone.

Counted are the tensors that exist at the same time: weights, gradients, optimiser state, the copy
of a reference, copies of a rule, what a forward pass saves for the backward pass, and the chunks of
the output layer. Activations are those of a Llama-like block in Hugging Face's implementation;
other architectures may save more. Not counted: memory of the runtime (some hundred MiB on CUDA),
fragmentation, and files mapped while loading.
"""

from collections.abc import Iterator
from typing import NamedTuple

from ilu.methods.retain.likelihood import NLL
from ilu.models.lm_head_loss import BLOCK, CHUNK, DEVICE_BLOCK, KEPT, ROWS
from ilu.models.qlora import BYTES as NF4
from ilu.runs.memory.model_shape import Memory, Shape
from ilu.runs.recipe import Recipe
from ilu.training.objective import Term, joins
from ilu.types import Loss

STATES = {
    "adamw": 8.0, "sgd": 4.0, "signsgd": 4.0, "mezo": 4.0, "sophia": 8.0, "adamw8bit": 2.03,
    "adamw-bf16": 2.03,
}  # fmt: skip
"""Bytes of optimiser state per trained weight: one or two moments, in float32 or 8 bits.

mezo has none, but a copy of the weights. What a backward pass needs is planned for it as well.
"""


EAGER = {"adamw8bit": 53.0, "adamw-bf16": 57.0}
"""Bytes for each entry of the largest weight while torchao's optimiser rounds a moment to 8 bits.

Not on CUDA, where the step is compiled: the new weight and both moments (12, and 4 for a gradient
in bfloat16), the scaled moment (4), and the search for its codes (37), which are 8 bytes wide.
"""


def peak_memory(recipe: Recipe, shape: Shape, length: int, device: str = "cuda") -> Memory:
    """Peak memory of a step, for examples of ``length`` tokens that are all labelled."""
    optim = recipe.optim
    width = 2 if optim.optimizer == "adamw-bf16" else 4
    gradient = float(width * shape.with_gradient)
    fixed = {
        "weights": float(width * (shape.weights - shape.rounded)) + rounded(shape, device),
        "optimizer": STATES[optim.optimizer] * shape.trained,
        "reference": reference(recipe, shape, width, device),
    }
    found = [step_end(shape, width, optim.optimizer, device)]
    before = 0.0
    for term in recipe.objective.values():
        # A loss on states has gradients only below them; a rule has one of every weight.
        below = joined(term, recipe) and not term.loss.needs.texts
        own = float(width * shape.up_to[last_block(term.loss, shape)]) if below else gradient
        found += moments(term, before, own, recipe, shape, length, device)
        before = max(before, own)
    if optim.average_from is not None:
        fixed["optimizer"] += 4.0 * shape.trained
    return max((Memory(**fixed, **m) for m in found), key=lambda m: m.total)


def rounded(shape: Shape, device: str) -> float:
    """Weights of 4 bits, plus the unquantised ones if they are in the same memory."""
    return shape.rounded * (NF4 + (4.0 if device == "cpu" else 0.0))


def last_block(loss: Loss, shape: Shape) -> int:
    """The last block that a loss on states evaluates."""
    return min(max(loss.needs.blocks), shape.layers - 1)


def reference(recipe: Recipe, shape: Shape, width: int, device: str) -> float:
    """The original weights; if they are in host memory, one block and those outside of blocks."""
    if not any(term.loss.needs.reference for term in recipe.objective.values()):
        return 0.0
    there = shape.weights - (shape.layers - 1) * shape.block
    away = recipe.optim.offload_reference and device != "cpu"
    return float(width * (min(shape.with_gradient, there) if away else shape.with_gradient))


def step_end(shape: Shape, width: int, optimizer: str, device: str) -> dict[str, float]:
    """The optimiser's step: all gradients, and on a GPU one vector of intermediate results."""
    if device == "cpu":
        extra = EAGER.get(optimizer, 2.0 * width) * shape.largest
    else:
        extra = width * (shape.trained if optimizer == "adamw" else 2 * shape.largest)
    return {"gradients": float(width * shape.trained), "rules": float(extra),
            "activations": 0.0, "head": 0.0}  # fmt: skip


def moments(
    term: Term,
    before: float,
    gradient: float,
    recipe: Recipe,
    shape: Shape,
    length: int,
    device: str,
) -> Iterator[dict[str, float]]:
    """The ends of every forward and backward pass of a term, with the copies of its rule.

    A rule keeps gradients while it differentiates its term. It may also differentiate the
    likelihood of another stream, whose batch may be much larger.
    """
    one = Pass(term.loss, rows(recipe, term.on) * length, exact=not joined(term, recipe))
    if not one.exact:
        backward = gradient if not before else 4.0 * shape.largest
        yield from ends(one, before, 0.0, backward, recipe, shape, device)
        return
    copies = term.rule.copies
    there, new = (copies.at_own + copies.added) * gradient, (1 - copies.added) * gradient
    yield from ends(one, before, there, new, recipe, shape, device)
    for on in term.rule.reads():
        other = Pass(NLL(), rows(recipe, on) * length, exact=True)
        yield from ends(other, before, copies.at_other * gradient, gradient, recipe, shape, device)
    yield {"gradients": before + gradient, "rules": (copies.most - 1) * gradient,
           "activations": 0.0, "head": 0.0}  # fmt: skip


def joined(term: Term, recipe: Recipe) -> bool:
    """Whether a term shares a backward pass with others (see ``objective``)."""
    size, most = recipe.data[term.on].batch_size, recipe.optim.micro_batch
    unsplit = most is None or size <= most
    return joins(term) and (unsplit or (term.rule.power == 1 and term.relative_to is None))


def rows(recipe: Recipe, on: str) -> int:
    """Examples of a stream in one forward pass."""
    size = recipe.data[on].batch_size
    return min(size, recipe.optim.micro_batch or size)


class Pass(NamedTuple):
    """One forward pass; an ``exact`` one is without autocast."""

    loss: Loss
    tokens: int
    exact: bool


def ends(
    one: Pass,
    before: float,
    rules: float,
    backward: float,
    recipe: Recipe,
    shape: Shape,
    device: str,
) -> Iterator[dict[str, float]]:
    """The end of a forward pass, and of its backward pass, at which ``backward`` is added."""
    kept, block = activations(one, recipe, shape)
    top = head(one, recipe, shape, device)
    # A block is recomputed after the output layer has finished.
    kept, top = (kept + block, 0.0) if block > top else (kept, top)
    yield {"gradients": before, "rules": rules, "activations": kept, "head": top}
    last = kept / max(1, shape.layers)
    yield {"gradients": before + backward, "rules": rules, "activations": last, "head": 0.0}


def activations(one: Pass, recipe: Recipe, shape: Shape) -> tuple[float, float]:
    """What the blocks save for the backward pass, from the lowest one with a gradient upwards.

    Per token: queries, keys, values (repeated for groups) and output of attention, and
    ``Shape.kept`` of norms and MLP. The second number is the memory of one block while it is
    recomputed.
    """
    tokens, d = one.tokens, shape.hidden
    small, autocast = product_bytes(one, recipe)
    large = 2 if recipe.optim.optimizer == "adamw-bf16" else 4
    attention = 4 * small * shape.queries + (2 * small * d if autocast else 0)
    each = [tokens * (kept.wide * large * d + attention + kept.inner * small * shape.inner)
            for last in runs(one.loss, shape)
            for kept in shape.kept[min(shape.first, last) : last + 1]]  # fmt: skip
    entering = tokens * large * d
    recompute = recipe.optim.recompute
    kept, again = (len(each) * entering, max(each)) if recompute else (sum(each), 0)
    cast = 2.0 * (shape.linear - shape.rounded) if autocast else 0.0
    return kept + 3.0 * entering + cast, float(again)


def runs(loss: Loss, shape: Shape) -> Iterator[int]:
    """The last block of each forward pass of a loss."""
    yield from (shape.layers - 1 for _ in range(loss.needs.texts))
    yield from (min(block, shape.layers - 1) for block in loss.needs.blocks)


def head(one: Pass, recipe: Recipe, shape: Shape, device: str) -> float:
    """Bytes of the output layer and of its gradient; 0 for losses on states."""
    needs = one.loss.needs
    if not needs.texts:
        return 0.0
    count = one.tokens * shape.vocabulary
    if needs.chunked and count > KEPT:
        size = BLOCK if device == "cpu" else DEVICE_BLOCK
        count = min(count, max(CHUNK, size // shape.vocabulary) * shape.vocabulary)
    weight = shape.vocabulary * shape.hidden if shape.head_gradient else 0
    states = 4.0 * (2 * needs.texts * one.tokens * shape.hidden + weight)
    return states + max(4.0 * needs.logits * count, of_targets(one, recipe, shape, device))


def of_targets(one: Pass, recipe: Recipe, shape: Shape, device: str) -> float:
    """Chunks of the output layer for losses that read only the log-probabilities of the targets.

    PyTorch needs three float32 chunks of logits. With the kernels of ``models.lm_head_triton`` a
    chunk has the precision of the product and its gradient replaces it; the next chunk is
    allocated before it is freed, and chunks saved for the backward pass are not overwritten. The
    columns of the weight in that precision and of its gradient are added. Derived from the code
    and tested with substitutes for the kernels on the CPU; not measured on a GPU.
    """
    logits, texts = one.tokens * shape.vocabulary, one.loss.needs.texts
    kept = logits if logits <= KEPT else 0
    if device == "cpu":
        return 4.0 * (texts * kept + 3 * min(logits, BLOCK))
    small, cast = product_bytes(one, recipe)
    high = min(one.tokens, ROWS)
    wide = min(shape.vocabulary, DEVICE_BLOCK // high)
    several = kept or high * wide < logits
    columns = wide * shape.hidden * (cast + shape.head_gradient)
    return small * (texts * kept + (1 + bool(several)) * high * wide + columns)


def product_bytes(one: Pass, recipe: Recipe) -> tuple[float, bool]:
    """Bytes of an output of the output layer, and whether its weight is cast for that."""
    pure = recipe.optim.optimizer == "adamw-bf16"
    autocast = recipe.optim.precision == "bfloat16" and not pure and not one.exact
    return 2.0 if autocast or pure else 4.0, autocast
