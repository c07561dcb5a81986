"""Training steps as they are usually written, to compare with: from the formulas, not from code.

All logits of both batches, cross-entropy on their transpose, a copy of the model that reads the
forget batch at every step, and for RMU every block of both models.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ilu.methods.forget.rmu import steering_vector
from ilu.types import IGNORE, Batch

Step = Callable[[], float]
"""One step of training; returns the loss before it."""


def token_nll(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """NLL of every token, 0 where it does not count, and how many count in each row."""
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    shifted, labels = logits[:, :-1].contiguous(), batch.labels[:, 1:].contiguous()
    nll = F.cross_entropy(shifted.transpose(-1, -2), labels, ignore_index=IGNORE, reduction="none")
    return nll, (labels != IGNORE).sum(-1)


def mean_nll(model: nn.Module, batch: Batch) -> Tensor:
    """Mean over all tokens of the batch."""
    nll, count = token_nll(model, batch)
    return nll.sum() / count.sum()


def graddiff(model: nn.Module, reference: nn.Module, forget: Batch, retain: Batch) -> Tensor:
    """Ascent on the forget batch, descent on the other (arXiv 2401.06121)."""
    return mean_nll(model, retain) - mean_nll(model, forget)


def npo(model: nn.Module, reference: nn.Module, forget: Batch, retain: Batch) -> Tensor:
    """-(2/beta) log sigmoid(beta (nll - reference nll)), beta 0.1 (arXiv 2404.05868)."""
    ours = token_nll(model, forget)[0].sum(-1)
    with torch.no_grad():
        theirs = token_nll(reference, forget)[0].sum(-1)
    loss = -(2 / 0.1) * F.logsigmoid(0.1 * (ours - theirs)).mean()
    return loss + mean_nll(model, retain)


def simnpo(model: nn.Module, reference: nn.Module, forget: Batch, retain: Batch) -> Tensor:
    """-(2/beta) log sigmoid(beta nll per token), beta 2.5 (arXiv 2410.07163)."""
    nll, count = token_nll(model, forget)
    loss = -(2 / 2.5) * F.logsigmoid(2.5 * nll.sum(-1) / count).mean()
    return loss + mean_nll(model, retain)


def states(model: nn.Module, batch: Batch, layer: int) -> Tensor:
    """Output of a block, from a forward pass through all of them."""
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    return model(**inputs, output_hidden_states=True).hidden_states[layer + 1]


def rmu(
    model: nn.Module, reference: nn.Module, forget: Batch, retain: Batch, *, layer: int = 7
) -> Tensor:
    """Towards 6.5 times a fixed direction, 1200 times the distance kept (arXiv 2403.03218)."""
    hidden, kept = states(model, forget, layer), states(model, retain, layer)
    with torch.no_grad():
        original = states(reference, retain, layer)
    target = 6.5 * steering_vector(hidden.shape[-1], seed=0)
    return F.mse_loss(hidden, target.expand_as(hidden)) + 1200 * F.mse_loss(kept, original)


PeerLoss = Callable[[nn.Module, nn.Module, Batch, Batch], Tensor]
"""A loss of the model, the reference, the forget batch and the retain batch."""
LOSSES: dict[str, PeerLoss] = {"graddiff": graddiff, "npo": npo, "simnpo": simnpo, "rmu": rmu}


def reference_of(method: str, model: nn.Module) -> nn.Module:
    """The copy that the method reads; the model itself if it reads none."""
    return deepcopy(model).eval() if method in ("npo", "rmu") else model


def peer_step(
    method: str,
    model: nn.Module,
    trained: list[nn.Parameter],
    forget: Batch,
    retain: Batch,
    *,
    layer: int = 7,
) -> Step:
    """A step of ``method`` with AdamW; ``layer`` is the block that RMU reads."""
    reference = reference_of(method, model)
    loss_of = loss_at(method, layer)
    adam = torch.optim.AdamW(trained, lr=1e-5, weight_decay=0.0)

    def step() -> float:
        loss = loss_of(model, reference, forget, retain)
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        adam.step()
        return loss.item()

    return step


def loss_at(method: str, layer: int) -> PeerLoss:
    """The loss of a method; that of RMU at a block."""
    return partial(rmu, layer=layer) if method == "rmu" else LOSSES[method]
