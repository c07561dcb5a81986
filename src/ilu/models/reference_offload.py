"""Original weights in host memory, which a reference reads block by block.

A block's weights are on the device while that block runs, those outside of blocks while the model
does, and the output layer's until the loss is differentiated.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ilu.types import Weights


def host_copy(weight: Tensor) -> Tensor:
    """A copy in host memory, page-locked if a CUDA device will read it."""
    copy = torch.empty_like(weight, device="cpu", pin_memory=weight.is_cuda)
    return copy.copy_(weight)


def on_device(copy: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to the device; on the CPU, the tensor itself."""
    return copy.to(device, non_blocking=True)


def run_in_turn(
    model: nn.Module, parts: Sequence[nn.Module], weights: Weights, inputs: Mapping[str, Any]
) -> Any:
    """Run ``model`` with other ``weights``; each of ``parts`` has them only while it runs."""
    named = dict(model.named_parameters())
    device = next(iter(named.values())).device
    within = {id(module) for part in parts for module in part.modules()}
    outside = {
        id(p)
        for module in model.modules()
        if id(module) not in within
        for p in module.parameters(recurse=False)
    }
    outer = {n: on_device(w, device) for n, w in weights.items() if id(named[n]) in outside}
    copies = {id(named[n]): w for n, w in weights.items() if n not in outer}
    with lent(parts, lambda p: on_device(copies[id(p)], device) if id(p) in copies else None):
        return functional_call(model, outer, (), dict(inputs))


@contextmanager
def lent(
    parts: Iterable[nn.Module], other: Callable[[nn.Parameter], Tensor | None]
) -> Generator[None]:
    """Let each part have ``other`` values in place of its weights, where there are, as it runs."""
    own: list[tuple[nn.Module, str, nn.Parameter]] = []

    def lend(part: nn.Module, *given: Any) -> None:
        for module in part.modules():
            for name, p in list(module.named_parameters(recurse=False)):
                value = other(p)
                if value is not None:
                    own.append((module, name, p))
                    setattr(module, name, nn.Parameter(value, requires_grad=False))

    def give_back(*given: Any) -> None:
        while own:
            module, name, p = own.pop()
            setattr(module, name, p)

    # First of all hooks: others leave the forward pass as soon as they have seen a block's output.
    hooks = [part.register_forward_pre_hook(lend, prepend=True) for part in parts]
    hooks += [part.register_forward_hook(give_back, prepend=True) for part in parts]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        give_back()
