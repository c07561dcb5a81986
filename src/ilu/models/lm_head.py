"""The output layer of a Hugging Face model: where it is, and what is done to its logits."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ilu.models.blocks import text_config
from ilu.types import Batch, Head

STRETCH = 64.0
"""The trial is made at states so much longer, where a soft cap shows."""
_TRIED: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


class Enough(Exception):
    """Leaves a forward pass as soon as the wanted module was reached."""


def head_of(model: nn.Module) -> Head | None:
    """The output layer; None where it is more than a linear map, a scale and a soft cap.

    Whether the three give the model's own logits is tried once for each model, not looked up by
    its name. Layers that are adapted, quantised, sharded or offloaded are left to the model.
    """
    form = described(model)
    if form is not None and model not in _TRIED:
        _TRIED[model] = gives_logits(model, form)
    return form if form is not None and _TRIED[model] else None


def described(model: nn.Module) -> Head | None:
    """The output layer as the configuration has it."""
    layer = output_layer(model)
    if type(layer) is not nn.Linear or type(layer.weight) is not nn.Parameter:
        return None
    if layer.weight.is_meta:
        return None
    config: Any = None if getattr(model, "config", None) is None else text_config(model)
    scale = getattr(config, "logit_scale", None) or 1.0
    scale /= getattr(config, "logits_scaling", None) or 1.0
    cap = getattr(config, "final_logit_softcapping", None)
    return Head(layer.weight, layer.bias, float(scale), cap)


def output_layer(model: nn.Module) -> nn.Module | None:
    """What the model itself calls its output layer."""
    find = getattr(model, "get_output_embeddings", None)
    try:
        return None if find is None else find()
    except (AttributeError, NotImplementedError):  # how libraries say that a model has none
        return None


@torch.no_grad()
def gives_logits(model: nn.Module, form: Head) -> bool:
    """Whether ``form`` and the states before the layer give what the model does."""
    ids = torch.tensor([[0, 1, 0], [1, 0, 1]], device=form.weight.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    layer = cast(nn.Module, output_layer(model))

    def stretch(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0] * STRETCH, *args[1:])

    hook = layer.register_forward_pre_hook(stretch)
    try:
        full = model(**inputs).logits
        states, head = states_and_head(model, form, lambda: model(**inputs))
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, AttributeError, IndexError, RuntimeError):
        return False
    finally:
        hook.remove()
    rough = 1e-4 if form.weight.element_size() >= 4 else 3e-2
    found, size = head(states), float(full.abs().max())
    return found.shape == full.shape and bool((found - full).abs().max() <= rough * size)


def states_and_head(model: nn.Module, form: Head, run: Callable[[], Any]) -> tuple[Tensor, Head]:
    """States that reach the output layer while the model runs, and the weights it has then."""
    found: list[tuple[Tensor, Head]] = []

    def keep(module: Any, args: tuple[Tensor, ...]) -> None:
        found.append((args[0], form._replace(weight=module.weight, bias=module.bias)))
        raise Enough

    hook = cast(nn.Module, output_layer(model)).register_forward_pre_hook(keep)
    try:
        run()
    except Enough:
        pass
    finally:
        hook.remove()
    return found[0]


def logits_at(
    model: nn.Module, batch: Batch, positions: Int[Tensor, "B K"], *, only: bool
) -> Float[Tensor, "B K V"]:
    """Logits at ``positions`` of each row; ``only`` these go through the output layer.

    ``only`` is what ``takes_positions`` says of the model: of 200 tokens and 128,000 logits each, a
    question needs those of one token.
    """
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    return logits_of(model, inputs, positions, only=only)


def logits_of(
    model: nn.Module, inputs: Mapping[str, Tensor], positions: Int[Tensor, "B K"], *, only: bool
) -> Float[Tensor, "B K V"]:
    """The same for any inputs of the model, such as rows with a mask of their own."""
    if only:
        return model(**inputs, use_cache=False, logits_to_keep=positions).logits
    return model(**inputs, use_cache=False).logits.take_along_dim(positions[..., None], dim=1)


_TAKES_POSITIONS: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def takes_positions(model: nn.Module) -> bool:
    """Whether ``logits_to_keep`` may hold other positions for each row; tried once for each model.

    Some models lack the argument, some read one list for all rows, some leave it unread.
    """
    if model not in _TAKES_POSITIONS:
        _TAKES_POSITIONS[model] = keeps_positions(model)
    return _TAKES_POSITIONS[model]


@torch.no_grad()
def keeps_positions(model: nn.Module) -> bool:
    """Whether the logits at given positions are those of all positions."""
    ids = torch.tensor([[0, 1, 0], [1, 0, 1]], device=next(model.parameters()).device)
    batch, positions = Batch(ids, torch.ones_like(ids), ids), torch.tensor([[2], [0]]).to(ids)
    full = logits_at(model, batch, positions, only=False)
    try:
        found = logits_at(model, batch, positions, only=True)
    except (TypeError, ValueError, IndexError, RuntimeError):
        return False
    close = partial(torch.allclose, rtol=1e-2, atol=1e-2)  # a bfloat16 model rounds
    return found.shape == full.shape and close(found.float(), full.float())
