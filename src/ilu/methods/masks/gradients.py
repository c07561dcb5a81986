"""Statistics for scores: gradients and activations over a full data set, in float32.

Each gradient is added to its sum as soon as backward has computed it, so only one exists at a time.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from ilu.data.stream import collate
from ilu.methods.masks.choices import Reduction
from ilu.models.forward import Frozen, ModelForward
from ilu.models.token_math import answered
from ilu.system.scores import Steps
from ilu.types import Batch, Example, Loss, Weights

Named = Mapping[str, nn.Parameter]


def loss_gradient(
    model: nn.Module,
    named: Named,
    loss: Loss,
    examples: Sequence[Example],
    *,
    batch_size: int,
    reduction: Reduction = "mean",
    progress: Steps = lambda done, total: None,
) -> Weights:
    """Gradient of a loss over all examples, for the weights ``named``."""
    share = equally(len(examples)) if reduction == "mean" else by_token
    sums = zeros(named)
    with collecting(model, named, partial(add, sums)):
        backward(model, loss, examples, batch_size, share, progress)
    return sums


def fisher(
    model: nn.Module,
    named: Named,
    loss: Loss,
    examples: Sequence[Example],
    *,
    progress: Steps = lambda done, total: None,
) -> Weights:
    """Empirical Fisher diagonal: the curvature of the mean loss per token.

    Mean over examples of T g * g, where g is the gradient of the example's mean loss over its T
    answer tokens. This is the estimate of ``training/optim/sophia.py`` with true instead of sampled
    labels. The batch size is 1: the squared gradient of a batch is smaller by up to the batch size.
    """
    sums, tokens = zeros(named), [1.0]

    def one(batch: Batch) -> Tensor:
        tokens[0] = float(answered(batch.labels[:, 1:]).sum())
        return torch.ones(1)

    def square(name: str, g: Tensor) -> None:
        sums[name].add_(g.float().square(), alpha=tokens[0] / len(examples))

    with collecting(model, named, square):
        backward(model, loss, examples, 1, one, progress)
    return sums


Share = Callable[[Batch], Tensor]
"""The weight of each example of a batch."""


def equally(count: int) -> Share:
    """The mean over ``count`` examples."""
    return lambda batch: torch.full((len(batch),), 1 / count)


def by_token(batch: Batch) -> Tensor:
    """Weights of the mean over the tokens of the batch, or of its refusals if it has them."""
    counted = batch.others[0] if batch.others else batch
    tokens = answered(counted.labels[:, 1:]).sum(-1).cpu()
    return tokens / tokens.sum().clamp_min(1)


def backward(
    model: nn.Module,
    loss: Loss,
    examples: Sequence[Example],
    batch_size: int,
    share: Share,
    progress: Steps,
) -> None:
    """Forward and backward passes over all examples."""
    device = next(model.parameters()).device
    forward, reference = ModelForward(model), Frozen(model, None)
    for start in range(0, len(examples), batch_size):
        batch = collate(examples[start : start + batch_size]).to(device)
        values = loss(forward, reference, batch)
        (values * share(batch).to(values)).sum().backward()
        progress(min(start + batch_size, len(examples)), len(examples))


def zeros(named: Named) -> dict[str, Tensor]:
    """Sums that start at zero."""
    return {n: torch.zeros(p.shape, dtype=torch.float32, device=p.device) for n, p in named.items()}


def add(sums: Mapping[str, Tensor], name: str, grad: Tensor) -> None:
    """Add the gradient of one weight."""
    sums[name].add_(grad)


@contextmanager
def collecting(
    model: nn.Module, named: Named, take: Callable[[str, Tensor], object]
) -> Generator[None]:
    """Pass each gradient of ``named`` to ``take`` once it is computed; no others are computed."""
    before = {n: p.requires_grad for n, p in model.named_parameters()}
    for name, p in model.named_parameters():
        p.requires_grad_(name in named)

    def drain(name: str, p: Tensor) -> None:
        assert p.grad is not None
        take(name, p.grad)
        p.grad = None

    hooks = [
        p.register_post_accumulate_grad_hook(partial(drain, name)) for name, p in named.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for name, p in model.named_parameters():
            p.requires_grad_(before[name])


@torch.no_grad()
def input_squares(
    model: nn.Module,
    examples: Sequence[Example],
    *,
    batch_size: int,
    progress: Steps = lambda done, total: None,
) -> Weights:
    """Mean square of each input of each linear layer, by weight name, without padding."""
    sums: dict[str, Tensor] = {}
    with listening(model, sums) as real:
        device = next(model.parameters()).device
        for start in range(0, len(examples), batch_size):
            batch = collate(examples[start : start + batch_size]).to(device)
            real.append(batch.attention_mask.bool())
            ModelForward(model, all_logits=True)(batch)
            progress(min(start + batch_size, len(examples)), len(examples))
    count = sum(int(mask.sum()) for mask in real)
    return {name: total / count for name, total in sums.items()}


@contextmanager
def listening(model: nn.Module, sums: dict[str, Tensor]) -> Generator[list[Tensor]]:
    """Add up the squared inputs of linear layers where the last mask of the list is true."""
    from transformers.pytorch_utils import Conv1D

    masks: list[Tensor] = []

    def hear(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].float()
        # Some models (OPT) flatten batch and tokens before their MLP.
        x = x[masks[-1].flatten() if x.dim() == 2 else masks[-1]].square().sum(0)
        # The inputs of a transposed layer (GPT-2) are the rows of its weight.
        x = x.unsqueeze(1) if isinstance(module, Conv1D) else x
        sums[name] = sums[name] + x if name in sums else x

    linear = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D)}
    hooks = [m.register_forward_pre_hook(partial(hear, f"{n}.weight")) for n, m in linear.items()]
    try:
        yield masks
    finally:
        for hook in hooks:
            hook.remove()
