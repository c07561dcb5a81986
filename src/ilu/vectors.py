"""Task vectors: differences of weights, and their geometry."""

from collections.abc import Mapping
from typing import NamedTuple

import torch

from ilu.types import Weights


class Angles(NamedTuple):
    """Cosines between tau_u, tau_ft and tau_u->ft of arXiv 2506.01339; None where one is zero."""

    ft_after_u__u: float | None
    ft_after_u__ft: float | None
    u__ft: float | None


def task_vector(start: Weights, end: Weights) -> Weights:
    """``end - start`` in float32, weight by weight."""
    odd = sorted(start.keys() ^ end.keys())
    if odd:
        raise ValueError(f"the two models differ in {len(odd)} weight names, first: {odd[:3]}")
    for name, w in start.items():
        if w.shape != end[name].shape:
            shapes = f"{tuple(w.shape)} and {tuple(end[name].shape)}"
            raise ValueError(f"weight {name} has shapes {shapes}: not the same architecture")
    return {name: end[name].float() - w.float() for name, w in start.items()}


def dot(a: Weights, b: Weights) -> float:
    """Inner product over all weights, summed in float64."""
    parts = [(x.double() * b[n].double()).sum() for n, x in a.items()]
    return torch.stack(parts).sum().item()


def length(a: Weights) -> float:
    """Euclidean norm over all weights."""
    return dot(a, a) ** 0.5


def cosine(a: Weights, b: Weights) -> float | None:
    """Cosine of the angle between two task vectors; None if either is zero."""
    scale = length(a) * length(b)
    return max(-1.0, min(1.0, dot(a, b) / scale)) if scale else None


def angles(original: Weights, unlearned: Weights, after: Weights, tuned: Weights) -> Angles:
    """The paper's three cosines; ``after`` is the unlearned, ``tuned`` the original fine-tuned."""
    u, ft = task_vector(original, unlearned), task_vector(original, tuned)
    ft_after_u = task_vector(unlearned, after)
    return Angles(cosine(ft_after_u, u), cosine(ft_after_u, ft), cosine(u, ft))


def by_module(vector: Weights) -> Mapping[str, float]:
    """Norm of the part of a task vector in each block, and in the weights outside the blocks."""
    squares: dict[str, float] = {}
    for name, x in vector.items():
        key = module_of(name)
        squares[key] = squares.get(key, 0.0) + x.double().square().sum().item()
    return {key: value**0.5 for key, value in squares.items()}


def module_of(name: str) -> str:
    """``block 3`` for a weight of the fourth block, otherwise the name of its module."""
    parts = name.split(".")
    number = next((p for p in parts if p.isdigit()), None)
    return f"block {number}" if number is not None else parts[-2] if len(parts) > 1 else name
