"""Loss landscape: scores along a line or on a plane through models, or in random directions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ilu.evals.suite import Scores
from ilu.scores import Steps
from ilu.types import LM, Weights


class Axis(NamedTuple):
    """A direction in weight space. ``length`` is its norm; ``name`` is the model at step 1.

    The length is None for random directions.
    """

    name: str
    direction: Weights
    length: float | None


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of a model's weights."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def shapes_of(weights: Weights) -> dict[str, tuple[int, ...]]:
    """The shape of every weight."""
    return {name: tuple(w.shape) for name, w in weights.items()}


def towards(name: str, origin: Weights, end: Weights) -> Axis:
    """The direction to another model: the line (1 - a) origin + a end (arXiv 1412.6544)."""
    away = {n: end[n].float() - w.float() for n, w in origin.items()}
    return Axis(name, away, norm(away))


def orthogonal_towards(name: str, origin: Weights, end: Weights, first: Axis) -> Axis:
    """The part of the direction to a third model that is orthogonal to the first axis.

    Both axes span the plane through three models (arXiv 1802.10026); ``position`` returns the
    coordinates of the third.
    """
    path = towards(name, origin, end).direction
    share = inner(path, first.direction) / max(inner(first.direction, first.direction), 1e-30)
    rest = {n: w - share * first.direction[n] for n, w in path.items()}
    return Axis(name, rest, norm(rest))


def position(origin: Weights, end: Weights, axes: Sequence[Axis]) -> list[float]:
    """Coordinates of a model on orthogonal axes."""
    path = towards("", origin, end).direction
    return [inner(path, a.direction) / max(inner(a.direction, a.direction), 1e-30) for a in axes]


def filter_normalised(origin: Weights, seed: int, name: str = "random") -> Axis:
    """A Gaussian direction whose filters have the norms of the weights' filters (arXiv 1712.09913).

    d_ij <- d_ij / |d_ij| |w_ij|; a filter is a row of a matrix, that is, the weights of one output.
    Vectors, such as the scales of norms, stay unchanged, as in the authors' code.
    """
    draw = torch.Generator().manual_seed(seed)
    return Axis(name, {n: filters_like(w, draw) for n, w in origin.items()}, None)


def filters_like(w: Float[Tensor, "..."], draw: torch.Generator) -> Float[Tensor, "..."]:
    """Gaussian rows with the norms of the rows of ``w``; zero for vectors."""
    if w.dim() < 2:
        return torch.zeros_like(w, dtype=torch.float32)
    d = torch.randn(w.shape, generator=draw).to(w.device)
    rows = tuple(range(1, w.dim()))
    lengths = (x.float().norm(dim=rows, keepdim=True) for x in (w, d))
    return d * next(lengths) / next(lengths).clamp_min(1e-12)


def inner(a: Weights, b: Weights) -> float:
    """Inner product over all weights, in float64."""
    return sum((x.double() * b[n].double()).sum().item() for n, x in a.items())


def norm(a: Weights) -> float:
    """Euclidean length over all weights."""
    return inner(a, a) ** 0.5


def surface(
    lm: LM,
    axes: Sequence[Axis],
    steps: Sequence[Sequence[float]],
    measure: Callable[[LM], Scores],
    progress: Steps = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Scores at every point of a grid around the model's weights, which are restored.

    ``steps``: the coordinates on each axis; the last varies fastest.
    """
    origin = weights_of(lm.model)
    points = torch.cartesian_prod(*(torch.tensor(s, dtype=torch.float64) for s in steps))
    results: list[dict[str, Any]] = []
    try:
        for i, point in enumerate(points.reshape(-1, len(axes)).tolist(), start=1):
            move(lm.model, origin, axes, point)
            scores: Mapping[str, Any] = measure(lm)
            values = {name: {"value": s.value, "stderr": s.stderr} for name, s in scores.items()}
            results.append({"at": point, "scores": values})
            progress(i, len(points))
    finally:
        move(lm.model, origin, [], [])
    return results


@torch.no_grad()
def move(model: nn.Module, origin: Weights, axes: Sequence[Axis], point: Sequence[float]) -> None:
    """Set the weights to the origin plus a step along each axis; exactly the origin at step 0."""
    for name, p in model.named_parameters():
        p.copy_(origin[name])
        for axis, step in zip(axes, point, strict=True):
            if step:
                p.add_(axis.direction[name].to(p), alpha=step)
