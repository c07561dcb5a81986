"""Task vectors (differences of weights) and their geometry, computed from a few rows at a time.

tau_u = unlearned - original, tau_ft = original fine-tuned - original, and tau_u->ft = unlearned
fine-tuned - unlearned (arXiv 2506.01339).
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from math import prod
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

TAUS: Mapping[str, tuple[str, str]] = {
    "ft_after_u": ("unlearned", "finetuned"),
    "u": ("original", "unlearned"),
    "ft": ("original", "tuned_original"),
}
"""Task vector -> the model where it starts and the model where it ends."""
PIECE = 1 << 22
"""Numbers of each model that are in memory at a time."""
Gram = Float[Tensor, "K K"]
"""Inner products of task vectors with each other."""

Shapes = Mapping[str, tuple[int, ...]]
"""Weight -> its shape."""


@runtime_checkable
class Stored(Protocol):
    """Weights of a model that can be read in pieces."""

    def shapes(self) -> Shapes:
        """Return the shape of each weight."""
        ...

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return some rows of a weight, that is, entries of its first axis."""
        ...


class Angles(NamedTuple):
    """Cosines between tau_u, tau_ft and tau_u->ft of arXiv 2506.01339; None where one is zero."""

    ft_after_u__u: float | None
    ft_after_u__ft: float | None
    u__ft: float | None


def known(models: Mapping[str, Stored]) -> Mapping[str, tuple[str, str]]:
    """The task vectors whose two models are both given."""
    return {tau: ends for tau, ends in TAUS.items() if set(ends) <= set(models)}


def grams(models: Mapping[str, Stored]) -> dict[str, Gram]:
    """Weight -> inner products of the task vectors ``known(models)`` on it, in float64."""
    taus = known(models).values()
    used = {name: models[name] for name in dict.fromkeys(n for ends in taus for n in ends)}
    products: dict[str, Gram] = {}
    for name, shape in same_shapes({m: w.shapes() for m, w in used.items()}).items():
        products[name] = torch.zeros(len(taus), len(taus), dtype=torch.float64)
        for start, stop in pieces(shape):
            part = {m: w.rows(name, start, stop).double().flatten() for m, w in used.items()}
            tau = torch.stack([part[end] - part[begin] for begin, end in taus])
            products[name] += tau @ tau.T
    return products


def pieces(shape: tuple[int, ...], most: int = PIECE) -> Iterator[tuple[int, int]]:
    """First and last row of pieces of about ``most`` numbers; a scalar is one row."""
    count = shape[0] if shape else 1
    step = max(1, most // max(1, prod(shape[1:])))
    return ((start, min(start + step, count)) for start in range(0, count, step))


def same_shapes(models: Mapping[str, Shapes]) -> Shapes:
    """The shapes of the weights; ValueError if the models differ in them."""
    (first, shapes), *others = models.items()
    for name, other in others:
        odd = sorted(shapes.keys() ^ other.keys())
        if odd:
            raise ValueError(
                f"the models {first} and {name} differ in {len(odd)} weight names, first: {odd[:3]}"
            )
        for weight, shape in shapes.items():
            if shape != other[weight]:
                raise ValueError(
                    f"weight {weight} has shapes {shape} and {other[weight]}: "
                    "not the same architecture"
                )
    return shapes


def grouped(values: Mapping[str, Gram], key: Callable[[str], str]) -> dict[str, Gram]:
    """Inner products over all weights with the same key: those of disjoint weights add up.

    Keys with numbers are in the order of these: block 2 before block 10.
    """
    groups: dict[str, Gram] = {}
    for name, gram in values.items():
        groups[key(name)] = groups.get(key(name), torch.zeros_like(gram)) + gram
    return {each: groups[each] for each in sorted(groups, key=by_number)}


def by_number(name: str) -> tuple[str, int]:
    """Sort key: the words of a name, then its number."""
    words, _, number = name.rpartition(" ")
    return (words, int(number)) if number.isdigit() else (name, -1)


def norms(gram: Gram, taus: Mapping[str, Any]) -> dict[str, float]:
    """Length of each task vector."""
    return dict(zip(taus, gram.diagonal().sqrt().tolist(), strict=True))


def cosines(gram: Gram, taus: Mapping[str, Any]) -> dict[str, float | None]:
    """Cosine of each pair, called ``a__b``; None where one of the two is zero."""
    lengths = gram.diagonal().sqrt()
    values: dict[str, float | None] = {}
    for (i, a), (j, b) in combinations(enumerate(taus), 2):
        scale = (lengths[i] * lengths[j]).item()
        values[f"{a}__{b}"] = max(-1.0, min(1.0, gram[i, j].item() / scale)) if scale else None
    return values


def angles(models: Mapping[str, Stored]) -> Angles:
    """The paper's three cosines."""
    total = grouped(grams(models), lambda name: "")[""]
    return Angles(**cosines(total, known(models)))


def effective_rank(matrix: Float[Tensor, "M N"]) -> float:
    """exp(H(p)), p = sigma / sum(sigma) for the singular values sigma (Roy & Vetterli, 2007).

    1 for a matrix of rank 1, n for n equal singular values, 0 for the zero matrix.
    """
    sigma = torch.linalg.svdvals(matrix)
    total = sigma.sum()
    return torch.special.entr(sigma / total).sum().exp().item() if total > 0 else 0.0


def effective_ranks(models: Mapping[str, Stored]) -> dict[str, dict[str, float]]:
    """Matrix -> task vector -> effective rank. One full difference is in memory at a time."""
    taus = known(models)
    (any_model, *_) = {end for ends in taus.values() for end in ends}
    matrices = {n: shape for n, shape in models[any_model].shapes().items() if len(shape) == 2}
    return {
        name: {
            tau: effective_rank(difference(models[begin], models[end], name, shape))
            for tau, (begin, end) in taus.items()
        }
        for name, shape in matrices.items()
    }


def difference(begin: Stored, end: Stored, name: str, shape: tuple[int, ...]) -> Tensor:
    """One weight of a task vector, in float32."""
    values = torch.empty(shape)
    for start, stop in pieces(shape):
        rows = (w.rows(name, start, stop).double() for w in (end, begin))
        values[start:stop] = next(rows) - next(rows)
    return values
