"""RepSelect: ascent along what is specific to the forget set (arXiv 2606.17168, 2509.11816)."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ilu.methods.forget.ascent import Ascent
from ilu.methods.method import Method, Setup
from ilu.methods.retain.likelihood import NLL
from ilu.methods.robust.perturb import restored
from ilu.models.token_math import at_least_float32
from ilu.system.distributed import full_tensor, laid_out
from ilu.system.seeds import seeded
from ilu.training.objective import Plain, Term
from ilu.types import Copies, GradHere, GradOf, GradRule, Params, Slope

FORGET = "forget"
MLP_MATRICES = r"\.(mlp|ffn|feed_forward)\..*weight$|\.fc[12]\.weight$"
"""The matrices of all MLPs, in Llama-like models, GPT-2, GPT-NeoX, Phi and OPT."""
NEGLIGIBLE = 1e-6
"""Singular value, relative to the largest, below which a component counts as this large."""


class Components(NamedTuple):
    """The largest components of a matrix: u diag(s) v^T."""

    u: Float[Tensor, "... M Q"]
    s: Float[Tensor, "... Q"]
    v: Float[Tensor, "... N Q"]


def collapsed(
    g: Float[Tensor, "... M N"], v: Float[Tensor, "... N Q"], s: Float[Tensor, "... Q"]
) -> Float[Tensor, "... M N"]:
    """g (I - v diag(1 - s_min / s) v^T): the parts along v divided by s / s_min (2606.17168)."""
    part = 1 - s.amin(-1, keepdim=True) / s
    return g - ((g @ v) * part.unsqueeze(-2)) @ v.mT


def soft_collapse(g: Float[Tensor, "... M N"], top: Components) -> Float[Tensor, "... M N"]:
    """``collapsed`` on the input and then on the output side of a gradient (arXiv 2606.17168).

    Of the exact components of ``g``, s becomes s_min^2 / s: the largest becomes the smallest.
    """
    return collapsed(collapsed(g, top.v, top.s).mT, top.u, top.s).mT


def top_components(g: Float[Tensor, "... M N"], count: int, seed: int) -> Components:
    """The ``count`` largest components by a randomised decomposition, all if there are fewer."""
    with seeded(seed, g.device):
        u, s, v = torch.svd_lowrank(g, q=min(count, *g.shape[-2:]))
    return Components(u, s.clamp_min(NEGLIGIBLE * s.amax()).clamp_min(1e-30), v)


class Adapter(NamedTuple):
    """The change B A of a matrix (LoRA, arXiv 2106.09685)."""

    a: Float[Tensor, "... R N"]
    b: Float[Tensor, "... M R"]


def descended(adapter: Adapter, g: Float[Tensor, "... M N"], *, lr: float, scale: float) -> Adapter:
    """A step of SGD on the factors of W + scale B A, from the gradient g at W + scale B A.

    By the chain rule the gradients are scale B^T g for A and scale g A^T for B (2106.09685).
    """
    a, b = adapter
    return Adapter(a - lr * scale * b.mT @ g, b - lr * scale * g @ a.mT)


def new_adapter(w: Float[Tensor, "... M N"], rank: int, generator: torch.Generator) -> Adapter:
    """An adapter of ``w``: B is 0 and A uniform within 1 / sqrt(inputs), as PEFT begins."""
    *stack, rows, columns = w.shape
    dtype = torch.promote_types(w.dtype, torch.float32)
    a = torch.rand(*stack, rank, columns, generator=generator) * 2 - 1
    b = torch.zeros(*stack, rows, rank)
    return Adapter((a / math.sqrt(columns)).to(w.device, dtype), b.to(w.device, dtype))


@dataclass(frozen=True)
class RepSelect:
    """The term's gradient at weights that an adversary has fine-tuned, collapsed (2606.17168).

    1. Adapters are trained with SGD to relearn the forget set. 2. The gradient of the term is taken
    with the adapters. 3. The adapters are removed. 4. Of every matrix the ``components`` largest
    parts of the gradient are reduced with ``soft_collapse``. Other weights do not move.

    The released code (arXiv 2606.17168) sums the gradient over one pass of the forget set and takes
    several steps along it until the divergence on general text exceeds 0.01. Here it is the mean
    over one batch, so give `batch_size` the size of the forget set with a `micro_batch`; several
    steps along one gradient are one step with a larger `lr`, and further steps recompute it.
    ``inner`` is the rule for the term itself. ``adversary`` is the stream that is relearned.
    """

    components: int = 512
    adversary_steps: int = 32
    adversary_lr: float = 0.01
    adversary_rank: int = 8
    adversary: str = FORGET
    inner: GradRule = Plain()
    power = None

    def __post_init__(self) -> None:
        if self.components < 1 or self.adversary_rank < 1 or self.adversary_steps < 0:
            raise ValueError(
                f"`components` {self.components}, `adversary_rank` {self.adversary_rank}, "
                f"`adversary_steps` {self.adversary_steps}: the first two must be at least 1, the "
                "last at least 0"
            )

    @property
    def copies(self) -> Copies:
        most, own, other, added = self.inner.copies
        return Copies(1 + most, 1 + own, 1 + other, added)

    def reads(self) -> tuple[str, ...]:
        return (*self.inner.reads(), self.adversary)

    def __call__(self, params: Params, here: GradHere, grad_of: GradOf, step: int) -> Slope:
        with restored(params):
            self.relearn(params, grad_of, step)
            value, grads = self.inner(params, here, grad_of, step)
        for g in grads:
            self.collapse(g, step)
        return Slope(value, grads)

    @torch.no_grad()
    def relearn(self, params: Params, grad_of: GradOf, seed: int) -> None:
        """Train adapters on the adversary's stream, and leave the weights with their change."""
        generator = torch.Generator().manual_seed(seed)
        matrices = {i: p for i, p in enumerate(params) if p.ndim > 1}
        adapters = {i: new_adapter(p, self.adversary_rank, generator) for i, p in matrices.items()}
        for _ in range(self.adversary_steps):
            with torch.enable_grad():
                grads = grad_of(NLL(), self.adversary).grads
            for i, p in matrices.items():
                old, g = adapters[i], at_least_float32(full_tensor(grads[i]))
                new = adapters[i] = descended(old, g, lr=self.adversary_lr, scale=1.0)
                p.add_(laid_out(new.b @ new.a - old.b @ old.a, p))
            del grads  # before the next ones exist

    @torch.no_grad()
    def collapse(self, g: Tensor, seed: int) -> None:
        """Collapse the gradient of a matrix in place, and make that of a vector 0."""
        if g.ndim < 2:
            g.zero_()
            return
        matrix = at_least_float32(full_tensor(g))
        top = top_components(matrix, self.components, seed)
        g.copy_(laid_out(soft_collapse(matrix, top), g))


def relearns_its_topic(term: Term, topic: int) -> Term:
    """The term of a topic, whose adversary relearns this topic."""
    assert isinstance(term.rule, RepSelect)
    return replace(term, rule=replace(term.rule, adversary=term.on))


def repselect(
    components: int = 512,
    adversary_steps: int = 32,
    adversary_lr: float = 0.01,
    adversary_rank: int = 8,
) -> Setup:
    """Ascent along the forget gradient without its largest components (RepSelect, 2606.17168).

    The gradient of the MLP matrices is taken once, with adapters that have relearned the forget
    set, and has few components in common with what a fine-tuning changes. No retain data is read.
    It is the mean over one batch: give `batch_size` the size of the forget set, with a
    `micro_batch`.

    Args:
        components: of each matrix's gradient, the number of largest components that are reduced; at
            most a part of the smaller dimension is sensible.
        adversary_steps: steps of SGD of the adapters; 0 leaves them out.
        adversary_lr: learning rate of the adapters.
        adversary_rank: rank of the adapters.
    """
    rule = RepSelect(components, adversary_steps, adversary_lr, adversary_rank)
    return Setup(
        {FORGET: Term(Ascent(), on=FORGET, rule=rule)},
        parameters=MLP_MATRICES,
        for_topic=relearns_its_topic,
    )


DESCENT = {"optimizer": "sgd", "betas": (0.0, 0.0), "clip": None}
"""W - lr times the gradient: no momentum and no clipping."""
METHODS = {
    "repselect": Method(
        repselect,
        0.05,
        1,
        "components and both learning rates, for a gradient that is summed: released code; rank: "
        "PEFT; steps of the adversary and batch size: ours",
        {**DESCENT, "batch_size": 64, "micro_batch": 8},
        # Clipped below the size of every gradient, each of the few steps has a length of 2.
        lab={**DESCENT, "batch_size": 48, "lr": 2000.0, "clip": 1e-3, "steps": 16,
             "components": 64, "adversary_steps": 4},
    ),
}  # fmt: skip
