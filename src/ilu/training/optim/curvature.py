"""The curvature of the likelihood on the data of an objective."""

import torch
from torch import Tensor

from ilu.data.stream import split
from ilu.models.token_math import answered
from ilu.training.objective import Draw, Engine, Objective, set_grads
from ilu.training.optim.sophia import gauss_newton_bartlett, sampled_nll
from ilu.types import Batch, Grads


def curvature(objective: Objective, engine: Engine, draw: Draw, step: int) -> Grads:
    """Gauss-Newton-Bartlett estimate of every trained weight (arXiv 2305.14342, Algorithm 2).

    It is that of the mean cross-entropy over all answer tokens of one new batch of each stream, not
    of the terms, which may be unbounded or negative and have no Gauss-Newton matrix. The drawn
    labels depend only on ``step``.
    """
    grads = [p.grad for p in engine.params]
    set_grads(engine.params, [None] * len(grads))
    generator = torch.Generator().manual_seed(step)
    streams = dict.fromkeys(term.on for term in objective.values())
    count = sum(backward(engine, draw(on), generator) for on in streams)
    count = round(engine.ranks.mean(count) * engine.ranks.size)
    engine.ranks.sum_grads(engine.params)
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in engine.params]
    set_grads(engine.params, grads)
    count = max(1, count)
    return tuple(gauss_newton_bartlett(total / count, count) for total in found)


def backward(engine: Engine, batch: Batch, generator: torch.Generator) -> int:
    """Add the gradient of the summed loss of drawn labels to ``.grad``; return their number."""
    examples, tokens = batch.input_ids.shape
    rank, size = engine.ranks.rank, engine.ranks.size
    uniform = torch.rand(examples * size, tokens - 1, generator=generator)
    uniform = uniform.chunk(size)[rank].to(batch.input_ids.device)
    micro = engine.micro_batch or examples
    parts = zip(split(batch, micro), uniform.split(micro), strict=True)
    return sum(backward_part(engine, part, numbers) for part, numbers in parts)


def backward_part(engine: Engine, batch: Batch, uniform: Tensor) -> int:
    """The same for one micro-batch."""
    out = engine.views.model(batch)
    total = sampled_nll(out.logits, out.targets, uniform).sum()
    (total * engine.ranks.size / engine.ranks.divisor).backward()
    return int(answered(out.targets).sum().item())
