"""A Hugging Face causal LM as the losses see it. The one place that shifts labels."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from ilu.models.blocks import block, blocks
from ilu.models.lm_head import Enough, head_of, states_and_head
from ilu.models.lm_head_loss import tokens_of
from ilu.models.packing import in_row, packed, padded, spread
from ilu.models.reference_cache import ReferenceCache
from ilu.models.reference_offload import run_in_turn
from ilu.types import Batch, Forward, Outputs, Tokens, Weights


class Shift(NamedTuple):
    """What is added to the output of a block when the model reads ``batch``."""

    layer: int
    by: Float[Tensor, "B T D"]
    batch: Batch


@dataclass(frozen=True)
class ModelForward:
    """``model``, if wanted with other ``weights``, under bfloat16 autocast, or shifted inside.

    ``all_logits`` computes all logits at once, which a second derivative requires. ``in_turn``, for
    passes without gradient, copies other weights to the device block by block. ``packed`` reads no
    padding, which requires ``packing.attending_to_each_text``.
    """

    model: nn.Module
    weights: Weights | None = None
    autocast: bool = False
    shift: Shift | None = None
    all_logits: bool = False
    in_turn: bool = False
    packed: bool = False

    def __call__(self, batch: Batch) -> Outputs:
        targets = batch.labels[:, 1:]
        form = None if self.all_logits else head_of(self.model)
        if form is None:
            return Outputs(self._rows(self._run(batch).logits, batch)[:, :-1], targets)
        form = form._replace(dtype=torch.bfloat16 if self.autocast else None)
        states, head = states_and_head(self.model, form, partial(self._run, batch))
        return Outputs(self._rows(states, batch)[:, :-1], targets, head)

    def tokens(self, batch: Batch, *, entropy: bool = False) -> Tokens:
        """Return the log-probability of each target, and the entropy of its prediction."""
        return tokens_of(self(batch), entropy=entropy)

    def hidden(self, batch: Batch, layer: int) -> Float[Tensor, "B T D"]:
        """Return the output of block ``layer`` and do not run the later ones."""
        found: list[Tensor] = []

        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            found.append(output if isinstance(output, Tensor) else output[0])
            raise Enough

        hook = block(self.model, layer).register_forward_hook(keep)
        try:
            self._run(batch)
        except Enough:
            pass
        finally:
            hook.remove()
        return self._rows(found[0], batch)

    def shifted(self, layer: int, by: Float[Tensor, "B T D"], batch: Batch) -> "ModelForward":
        """Return the same view with ``by`` added to the output of block ``layer`` on ``batch``."""
        return replace(self, shift=Shift(layer, by, batch))

    def _rows(self, found: Tensor, batch: Batch) -> Tensor:
        return spread(found, batch) if self.packed else found

    def _shift_on(self, batch: Batch) -> Shift | None:
        if self.shift is None or self.shift.batch is not batch:
            return None
        return self.shift._replace(by=in_row(self.shift.by, batch)) if self.packed else self.shift

    def _run(self, batch: Batch) -> Any:
        inputs = (packed if self.packed else padded)(batch)
        device = batch.input_ids.device.type
        autocast = torch.autocast(device, torch.bfloat16, enabled=self.autocast)
        with autocast, shifting(self.model, self._shift_on(batch)):
            if self.weights is None:
                return self.model(**inputs)
            if self.in_turn:
                return run_in_turn(self.model, [*blocks(self.model)], self.weights, inputs)
            return functional_call(self.model, dict(self.weights), (), inputs)


@dataclass(frozen=True)
class Shared:
    """``inner`` for several losses on the same batch: each batch is read once.

    What a batch gave is kept with its graph, so this must not outlive the backward pass.
    """

    inner: Forward
    outputs: dict[int, Outputs] = field(default_factory=dict[int, Outputs])
    values: dict[int, Tokens] = field(default_factory=dict[int, Tokens])

    def __call__(self, batch: Batch) -> Outputs:
        return self.outputs.get(id(batch)) or self.outputs.setdefault(id(batch), self.inner(batch))

    def tokens(self, batch: Batch, *, entropy: bool = False) -> Tokens:
        """Return log-probabilities, and entropies for whoever may ask."""
        if id(batch) not in self.values:
            self.values[id(batch)] = tokens_of(self(batch), entropy=True)
        return self.values[id(batch)]

    def hidden(self, batch: Batch, layer: int) -> Float[Tensor, "B T D"]:
        """Return the output of block ``layer``."""
        return self.inner.hidden(batch, layer)

    def shifted(self, layer: int, by: Float[Tensor, "B T D"], batch: Batch) -> Forward:
        """Return the model with ``by`` added to block ``layer`` on ``batch``."""
        return self.inner.shifted(layer, by, batch)


@dataclass(frozen=True)
class Frozen:
    """The original model: ``model`` with its trained weights put back, without gradient.

    Only the trained weights exist twice: all of them, three matrices for RMU, an adapter for LoRA.
    They are ``offloaded`` if they are in host memory while the model is on another device.
    Log-probabilities of a text are computed once and cached.
    """

    model: nn.Module
    weights: Weights | None
    autocast: bool = False
    offloaded: bool = False
    packed: bool = False
    shift: Shift | None = None
    cache: ReferenceCache = field(default_factory=ReferenceCache)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Outputs:
        return self._forward()(batch)

    @torch.no_grad()
    def tokens(self, batch: Batch, *, entropy: bool = False) -> Tokens:
        """Return what the original model says of each target, read now or before."""
        forward = self._forward()
        if entropy or self.shift:
            return forward.tokens(batch, entropy=entropy)
        return self.cache.tokens(batch, forward.tokens, autocast=self.autocast)

    @torch.no_grad()
    def hidden(self, batch: Batch, layer: int) -> Float[Tensor, "B T D"]:
        """Return the output of block ``layer`` of the original model."""
        return self._forward().hidden(batch, layer)

    def shifted(self, layer: int, by: Float[Tensor, "B T D"], batch: Batch) -> "Frozen":
        """Return the original model with ``by`` added to block ``layer`` on ``batch``."""
        return replace(self, shift=Shift(layer, by, batch))

    def _forward(self) -> ModelForward:
        if self.weights is None:
            raise ValueError("a loss reads the reference, but `needs` has no reference=True")
        return ModelForward(
            self.model, self.weights, self.autocast, self.shift,
            in_turn=self.offloaded, packed=self.packed,
        )  # fmt: skip


@contextmanager
def shifting(model: nn.Module, shift: Shift | None) -> Generator[None]:
    """Add to the output of a block while the model runs."""
    if shift is None:
        yield
        return

    def add(module: nn.Module, inputs: Any, output: Any) -> Any:
        if isinstance(output, Tensor):
            return output + shift.by
        return (output[0] + shift.by, *output[1:])

    # Before the hook that reads the block's output, which is there already.
    hook = block(model, shift.layer).register_forward_hook(add, prepend=True)
    try:
        yield
    finally:
        hook.remove()


def every_hidden(model: nn.Module, batch: Batch) -> list[Float[Tensor, "B T D"]]:
    """Output of every block; that of the last is taken before the final norm."""
    found: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        found.append(output if isinstance(output, Tensor) else output[0])

    hooks = [one.register_forward_hook(keep) for one in blocks(model)]
    try:
        ModelForward(model, all_logits=True)(batch)  # otherwise the output layer is tried first
    finally:
        for hook in hooks:
            hook.remove()
    return found
