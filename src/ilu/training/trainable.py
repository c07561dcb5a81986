"""A model during training: which weights have a gradient, and which activations are saved."""

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from ilu.models.blocks import blocks
from ilu.models.mode import mode_restored
from ilu.models.weight_names import named_trained
from ilu.training.optim.masked import movable
from ilu.training.optim.protocol import Named
from ilu.types import Mask


@contextmanager
def training(
    model: nn.Module, pattern: str, mask: Mask | None = None, perturbed: str | None = None
) -> Generator[Named]:
    """Let only weights that match ``pattern`` and may move have a gradient; dropout is off.

    Weights that match ``perturbed`` have one too, so that gradient rules can perturb them.
    """
    moved = movable(named_trained(model, pattern), mask)
    reached = {} if perturbed is None else named_trained(model, perturbed)
    named = {n: p for n, p in model.named_parameters() if n in moved or n in reached}
    with mode_restored(model):
        model.eval()
        for n, p in model.named_parameters():
            p.requires_grad_(n in named)
        yield named


@contextmanager
def recomputed(model: nn.Module, wanted: bool) -> Generator[None]:
    """Gradient checkpointing (arXiv 1604.06174): save only the input of each block.

    The backward pass recomputes the block with identical results. The option of transformers
    works only in training mode, where dropout would be on.
    """
    own = [(one, one.forward) for one in blocks(model)] if wanted else []
    for one, forward in own:
        one.forward = partial(checkpoint, forward, use_reentrant=False)
    try:
        yield
    finally:
        for one, _ in own:
            del one.forward
