"""Scores of the importance of each weight for the forget set; a mask selects the largest.

Each function scores one weight tensor: ``theta`` are its weights, ``g_f`` and ``g_r`` the gradients
of forget and retain loss, in float32. Scores may be negative; masks use their absolute value.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

Evidence = Literal["forget", "retain", "fisher", "inputs"]
"""Statistics that a score may need: the mean gradients of the forget and the retain loss, the mean
square of the per-example retain gradients, and the mean square of the inputs of each column of a
linear layer on the forget set."""


class Seen(NamedTuple):
    """The statistics of one weight tensor; None for those that the score does not need."""

    forget: Float[Tensor, "*shape"] | None = None
    retain: Float[Tensor, "*shape"] | None = None
    fisher: Float[Tensor, "*shape"] | None = None
    inputs: Float[Tensor, "..."] | None = None


@runtime_checkable
class Attribution(Protocol):
    """A score of every weight; ``needs`` lists the statistics that it uses."""

    needs: ClassVar[tuple[Evidence, ...]]

    def __call__(
        self, name: str, theta: Float[Tensor, "*shape"], seen: Seen
    ) -> Float[Tensor, "*shape"]:
        """Return the scores of the weights ``theta``, called ``name``."""
        ...


@dataclass(frozen=True)
class Gradient:
    """The forget gradient: saliency, as in SalUn (arXiv 2310.12508)."""

    needs: ClassVar[tuple[Evidence, ...]] = ("forget",)

    def __call__(self, name: str, theta: Tensor, seen: Seen) -> Tensor:
        assert seen.forget is not None
        return seen.forget


@dataclass(frozen=True)
class Snip:
    """theta g_f: first-order change of the forget loss without the weight (arXiv 1810.02340)."""

    needs: ClassVar[tuple[Evidence, ...]] = ("forget",)

    def __call__(self, name: str, theta: Tensor, seen: Seen) -> Tensor:
        assert seen.forget is not None
        return theta * seen.forget


@dataclass(frozen=True)
class Magnitude:
    """Magnitude of the weight: a baseline without data."""

    needs: ClassVar[tuple[Evidence, ...]] = ()

    def __call__(self, name: str, theta: Tensor, seen: Seen) -> Tensor:
        return theta


@dataclass(frozen=True)
class Random:
    """Uniform random scores: a baseline.

    Each tensor has its own generator, so that its numbers depend only on seed and name.

    Args:
        mask_seed: seed of the numbers.
    """

    mask_seed: int = 0
    needs: ClassVar[tuple[Evidence, ...]] = ()

    def __call__(self, name: str, theta: Tensor, seen: Seen) -> Tensor:
        digest = hashlib.sha256(f"{self.mask_seed}:{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        return torch.rand(theta.shape, generator=generator).to(theta.device)


@dataclass(frozen=True)
class Wanda:
    """|theta| times the root mean square of its input on the forget set (arXiv 2306.11695).

    Only weights of linear layers have this score; all others are fixed. The released code of WAGLE
    also counts padding as input.
    """

    needs: ClassVar[tuple[Evidence, ...]] = ("inputs",)

    def __call__(self, name: str, theta: Tensor, seen: Seen) -> Tensor:
        assert seen.inputs is not None
        return theta * seen.inputs.sqrt()


@dataclass(frozen=True)
class Named:
    """1 for weights whose name matches, 0 for others: a mask of modules, such as RMU's layers.

    Args:
        pattern: regular expression.
    """

    pattern: str
    needs: ClassVar[tuple[Evidence, ...]] = ()

    def __call__(self, name: str, theta: Tensor, seen: Seen) -> Tensor:
        return torch.full_like(theta, float(re.search(self.pattern, name) is not None))
