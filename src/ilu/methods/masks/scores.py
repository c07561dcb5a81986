"""How much each weight matters to what is to be forgotten. A mask lets the largest scores move.

Everything is about one weight tensor: ``theta`` are its weights, ``g_f`` and ``g_r`` the gradients
of forget and retain loss, in float32. Scores may be negative; what counts is their size.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

Evidence = Literal["forget", "retain", "fisher", "inputs"]
"""What a score may ask for: two mean gradients, the mean square of the retain gradient of each
example, and the mean square of what each column of a linear layer is given on the forget set."""


class Seen(NamedTuple):
    """What was measured about one weight tensor; None where a score does not ask for it."""

    forget: Float[Tensor, "*shape"] | None = None
    retain: Float[Tensor, "*shape"] | None = None
    fisher: Float[Tensor, "*shape"] | None = None
    inputs: Float[Tensor, "..."] | None = None


@runtime_checkable
class Attribution(Protocol):
    """A score of every weight; ``needs`` says what must be measured for it."""

    needs: ClassVar[tuple[Evidence, ...]]

    def __call__(
        self, name: str, theta: Float[Tensor, "*shape"], seen: Seen
    ) -> Float[Tensor, "*shape"]:
        """Return the scores of the weights ``theta``, called ``name``."""
        ...


@dataclass(frozen=True)
class Gradient:
    """Size of the forget gradient: saliency, as in SalUn (arXiv 2310.12508)."""

    needs: ClassVar[tuple[Evidence, ...]] = ("forget",)

    def __call__(self, name: str, theta: Tensor, seen: Seen) -> Tensor:
        assert seen.forget is not None
        return seen.forget


@dataclass(frozen=True)
class Snip:
    """theta g_f: first-order change of the forget loss if the weight were 0 (arXiv 1810.02340)."""

    needs: ClassVar[tuple[Evidence, ...]] = ("forget",)

    def __call__(self, name: str, theta: Tensor, seen: Seen) -> Tensor:
        assert seen.forget is not None
        return theta * seen.forget


@dataclass(frozen=True)
class Magnitude:
    """Size of the weight: a baseline that knows nothing of the data."""

    needs: ClassVar[tuple[Evidence, ...]] = ()

    def __call__(self, name: str, theta: Tensor, seen: Seen) -> Tensor:
        return theta


@dataclass(frozen=True)
class Random:
    """Uniform numbers: the baseline that any mask must beat.

    Each tensor has a generator of its own, so that its numbers depend on seed and name alone.

    Args:
        mask_seed: of the numbers.
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

    For the weights of linear layers only; others have no score and do not move. The released code
    of WAGLE counts padding as input.
    """

    needs: ClassVar[tuple[Evidence, ...]] = ("inputs",)

    def __call__(self, name: str, theta: Tensor, seen: Seen) -> Tensor:
        assert seen.inputs is not None
        return theta * seen.inputs.sqrt()


@dataclass(frozen=True)
class Named:
    """1 for weights whose name matches, 0 for others: a choice of modules, such as RMU's layers.

    Args:
        pattern: regular expression.
    """

    pattern: str
    needs: ClassVar[tuple[Evidence, ...]] = ()

    def __call__(self, name: str, theta: Tensor, seen: Seen) -> Tensor:
        return torch.full_like(theta, float(re.search(self.pattern, name) is not None))
