"""Training mode and trainability of a model, restored after code that changes them."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager

from torch import nn


@contextmanager
def mode_restored(model: nn.Module) -> Generator[None]:
    """Restore the training mode of every module and ``requires_grad`` of every weight at the end.

    Each module has its own mode: that of a wrapper, such as a PEFT model around ``model``, says
    nothing about the modules inside, and setting it would turn their dropout on.
    """
    modes = modes_of(model)
    trainable = {p: p.requires_grad for p in model.parameters()}
    try:
        yield
    finally:
        for p, wanted in trainable.items():
            p.requires_grad_(wanted)
        set_modes(modes)


def modes_of(model: nn.Module) -> Mapping[nn.Module, bool]:
    """Whether each module is in training mode."""
    return {module: module.training for module in model.modules()}


def set_modes(modes: Mapping[nn.Module, bool]) -> None:
    """Set the training mode of each module by itself."""
    for module, mode in modes.items():
        module.training = mode
