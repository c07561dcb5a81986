"""Representation noising: move the hidden states of the forget texts towards Gaussian noise."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ilu.data.stream import counterpart
from ilu.methods.method import Method, Setup, forget_and_retain, refusing
from ilu.models.token_math import at_least_float32
from ilu.types import Batch, Forward, Needs

WIDTHS = (0.2, 0.5, 0.9, 1.3)
"""Kernel widths, relative to the norm of a standard normal vector, sqrt(D)."""


def mmd(x: Float[Tensor, "N D"], y: Float[Tensor, "M D"]) -> Float[Tensor, ""]:
    """Squared maximum mean discrepancy of two samples, with Gaussian kernels of several widths."""
    return kernel(x, x).mean() + kernel(y, y).mean() - 2 * kernel(x, y).mean()


def kernel(x: Float[Tensor, "N D"], y: Float[Tensor, "M D"]) -> Float[Tensor, "N M"]:
    """Mean of exp(-|x - y|^2 / (2 D width^2)) over ``WIDTHS``."""
    squares = (x.square().sum(-1, keepdim=True) + y.square().sum(-1) - 2 * x @ y.T) / x.shape[-1]
    return torch.stack([(-squares / (2 * w * w)).exp() for w in WIDTHS]).mean(0)


@dataclass(frozen=True)
class RepNoise:
    """NLL(refusal) + beta MMD(h, noise) - alpha log(1 + NLL(forget)) (arXiv 2405.14577).

    The two samples of the MMD are the hidden states of one text, scaled to norm sqrt(D), and as
    many standard normal vectors, which are the same at every step. Differences from the released
    code: its sample is the batch, it uses the outputs of every MLP and the ascent through the head
    on every block. Here the MMD is on block ``layer`` and the ascent on the last block. It sums
    five kernels whose widths follow the mean distance; here it is the mean of four kernels of fixed
    width. So the same beta weighs several times more there.
    """

    layer: int = 20
    alpha: float = 1.0
    beta: float = 0.001
    seed: int = 0

    @property
    def needs(self) -> Needs:
        return Needs(texts=2, blocks=(self.layer,))

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        refusal = -forward.tokens(counterpart(batch, 0, "refusal")).mean()
        ascent = torch.log1p(-forward.tokens(batch).mean())
        return (
            refusal
            + self.beta * self.noise(forward.hidden(batch, self.layer), batch)
            - (self.alpha * ascent)
        )

    def noise(self, hidden: Float[Tensor, "B T D"], batch: Batch) -> Float[Tensor, " B"]:
        """MMD between the hidden states of each text and noise."""
        real: Bool[Tensor, "B T"] = batch.attention_mask.bool()
        texts = [at_least_float32(h)[r] for h, r in zip(hidden, real, strict=True)]
        return torch.stack([mmd(unit(h), self.normal(h)) for h in texts])

    def normal(self, like: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """Fixed standard normal vectors, one per token."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(like.shape, generator=generator).to(like)


def unit(hidden: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """States scaled to norm sqrt(D), so that the kernel widths fit any model."""
    width = math.sqrt(hidden.shape[-1])
    return width * hidden / hidden.norm(dim=-1, keepdim=True).clamp_min(1e-6)


def repnoise(layer: int = 20, alpha: float = 1.0, beta: float = 0.001, gamma: float = 1.0) -> Setup:
    """Move hidden states of the forget texts towards noise (RepNoise, arXiv 2405.14577).

    Args:
        layer: block whose output becomes noise; 0 is the first.
        alpha: weight of the ascent on the forget loss.
        beta: weight of the discrepancy from noise.
        gamma: weight of the retain term.
    """
    return refusing(forget_and_retain(RepNoise(layer, alpha, beta), 1.0, gamma))


METHODS = {
    "repnoise": Method(
        repnoise,
        1e-4,
        125,
        "lr, alpha, beta: released demo",
        lab={"lr": 3e-4, "layer": 3, "alpha": 4.0, "beta": 1.0},
    ),
}
