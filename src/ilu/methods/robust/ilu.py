"""The invariance penalty of ILU (arXiv 2506.01339): |grad_{w|w=1} l(w o theta; D)|^2.

The formula does not state what w multiplies, and there is no released code. Five readings:

    logits       P = g^2, g = d/dw l(w z)        w scales the logits z, as in IRMv1 (1907.02893)
    parameters   P = <theta, grad l>^2           one w on all trained weights
    tensors      P = sum_l <theta_l, grad_l>^2   one w per weight tensor
    elementwise  P = |theta * grad l|^2          one w per weight
    gradient     P = |grad l|^2                  the shorthand grad_w = grad_theta

``logits`` has a closed form and costs one gradient: ``Square`` over ``ScaleGradient``. The others
are P = <g, v> for a direction v that is linear in g = grad l, and

    grad P = 2 (e + H v),   e = the part of grad P / 2 in which theta appears explicitly,

where the Hessian-vector product H v comes from one more gradient after a small step along v
(``Penalty``). So no reading needs double backward, and all of them work with any attention kernel.
v and e are made tensor by tensor from theta and g, so that they need no memory of their own.

Two variants are our own. With ``Penalty.adversaries``, w scales the gradient along which an
adversary would relearn, instead of theta. With ``Layerwise``, the gradients of all tensors have
comparable weight.

Everything is computed over the *full* environment batch: squaring the gradient of each micro-batch
would penalise its variance instead. w multiplies every trained tensor, including entries that a
mask fixes. Tensors that are fixed completely, by ``Optim.parameters`` or a mask, are constants
unless ``Optim.perturbed`` includes them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ilu.methods.retain.likelihood import NLL
from ilu.methods.robust.perturb import dot, norm, restored, weighted_sum
from ilu.models.token_math import masked_mean
from ilu.system.checks import check_step
from ilu.types import Batch, Copies, Forward, GradHere, GradOf, Grads, Needs, Params, Slope, Tokens


def token_scale_gradient(tokens: Tokens) -> Float[Tensor, "B S"]:
    """d/dw of each token's cross-entropy of ``w * logits`` at w = 1: its NLL minus its entropy.

    Equal to sum_k p_k z_k - z_target, but without cancellation if all logits are large.
    """
    return -tokens.logp - tokens.entropy


def scale_gradient(tokens: Tokens) -> Float[Tensor, ""]:
    """d/dw of the mean token cross-entropy of ``w * logits`` at w = 1 (IRMv1, arXiv 1907.02893).

    Zero exactly when the mean NLL equals the mean entropy, that is, when the model is calibrated on
    average. This also holds for uniform predictions, so flat predictions satisfy the penalty.
    """
    return token_scale_gradient(tokens).sum() / tokens.valid.sum().clamp_min(1)


@dataclass(frozen=True)
class ScaleGradient:
    """``scale_gradient`` of each example. With ``Square`` it is the ``logits`` reading of ILU.

    It is the gradient of the mean over tokens, then over examples, like ``NLL`` (arXiv 2506.01339
    interpreted with arXiv 1907.02893).
    """

    needs = Needs(entropy=True)

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        tokens = forward.tokens(batch, entropy=True)
        return masked_mean(token_scale_gradient(tokens), tokens.valid)


@dataclass(frozen=True)
class Square:
    """Gradient of the square of a term's mean: 2 g grad g (the ``logits`` reading, 2506.01339).

    If the batch is not split into micro-batches, the objective squares the mean before backward.
    """

    power = 2
    copies = Copies(2)

    def reads(self) -> tuple[str, ...]:
        return ()

    def __call__(self, params: Params, here: GradHere, grad_of: GradOf, step: int) -> Slope:
        value, grads = here()
        return Slope(value**2, tuple(2 * value * g for g in grads))


class Direction(NamedTuple):
    """v and e of one tensor: e is the part of grad <g, v> / 2 with theta; None is 0."""

    v: Tensor
    e: Tensor | None


def gradient(theta: Grads, g: Grads) -> Iterator[Direction]:
    """P = |g|^2 (ILU, arXiv 2506.01339)."""
    return (Direction(v=x, e=None) for x in g)


def parameters(theta: Grads, g: Grads) -> Iterator[Direction]:
    """P = <theta, g>^2, the squared derivative of l(w theta) at w = 1 (ILU, arXiv 2506.01339)."""
    s = torch.stack([dot(t, x) for t, x in zip(theta, g, strict=True)]).sum()
    return (Direction(v=s * t, e=s * x) for t, x in zip(theta, g, strict=True))


def tensors(theta: Grads, g: Grads) -> Iterator[Direction]:
    """P = sum over tensors of <theta_l, g_l>^2 (ILU, arXiv 2506.01339)."""
    for t, x in zip(theta, g, strict=True):
        s = dot(t, x)
        yield Direction(v=s * t, e=s * x)


def elementwise(theta: Grads, g: Grads) -> Iterator[Direction]:
    """P = |theta * g|^2 (ILU, arXiv 2506.01339)."""
    return (Direction(v=t * t * x, e=t * x * x) for t, x in zip(theta, g, strict=True))


Reading = Callable[[Grads, Grads], Iterator[Direction]]
"""What w multiplies: theta and g -> v and e of each tensor, one after the other."""


@dataclass(frozen=True)
class Layerwise:
    """``reading`` with layer-wise weights, so that no tensor with a large gradient dominates.

    g_l becomes b_l g_l with b_l^2 = |g|^2 / (|g_l| sum_k |g_k|), treated as constant; |g| does not
    change. With ``gradient`` all parts of v have equal norm, and grad P is parallel to that of
    sum_l |g_l|: a sum of norms, not of squared norms. With weights of 1 / |g_l|^2 the tensor with
    the smallest gradient would dominate v. Ours, not from arXiv 2506.01339.
    """

    reading: Reading = gradient

    def __call__(self, theta: Grads, g: Grads) -> Iterator[Direction]:
        sizes = torch.stack([norm([x]) for x in g])
        b = (norm(g) ** 2 / (sizes * sizes.sum()).clamp_min(1e-30)).sqrt()
        weighted = tuple(a * x for a, x in zip(b, g, strict=True))
        for a, (v, e) in zip(b, self.reading(theta, weighted), strict=True):
            yield Direction(a * v, e)


@dataclass(frozen=True)
class Penalty:
    """Gradient of P = <g, v> by one forward difference (arXiv 2506.01339; readings: see above).

    H v is a difference quotient over a step of ``radius`` times the norm of the trained weights,
    which must be float32. Its relative error against double backward is of the order of ``radius``
    times the curvature; the project's log has the measurement for the default.

    ``adversaries`` are forget streams. With them w scales, instead of theta, the gradient f of
    their likelihood, scaled to the norm of theta and treated as constant. ``parameters`` is then
    |theta|^2 <f, g>^2 / |f|^2: proportional to the squared change of that likelihood in a step on
    the environment.
    """

    reading: Reading = gradient
    radius: float = 3e-5
    adversaries: tuple[str, ...] = ()
    power = None

    def __post_init__(self) -> None:
        check_step("radius", self.radius)

    @property
    def copies(self) -> Copies:
        before = 2 if len(self.adversaries) > 1 else 0  # their sum and the last gradient
        scaled = 1 if self.adversaries else 0
        weighted = 1 if isinstance(self.reading, Layerwise) else 0
        # The second gradient is added to the first, so that it is no further copy.
        return Copies(2 + scaled + weighted, 1 + scaled, before, added=1)

    def reads(self) -> tuple[str, ...]:
        return self.adversaries

    def __call__(self, params: Params, here: GradHere, grad_of: GradOf, step: int) -> Slope:
        scaled = self.scaled(params, grad_of)
        _, g = here()
        value, length = self.measured(scaled, g)
        size = self.radius * norm(scaled) / length
        with restored(params):
            self.step(params, scaled, g, size)
            _, difference = here(onto=g)
        torch._foreach_div_(list(difference), size)
        torch._foreach_mul_(list(difference), 2)
        return Slope(value.item(), difference)

    def measured(self, scaled: Grads, g: Grads) -> tuple[Tensor, Tensor]:
        """P = <g, v>, and the norm of v."""
        products, sizes = [], []
        for x, (v, _) in zip(g, self.reading(scaled, g), strict=True):
            products.append(dot(x, v))
            sizes.append(norm([v]))
        return torch.stack(products).sum(), norm(sizes)

    @torch.no_grad()
    def step(self, params: Params, scaled: Grads, g: Grads, size: Tensor) -> None:
        """Move the weights by ``size`` v, and turn g into -g + size e."""
        for p, x, (v, e) in zip(params, g, self.reading(scaled, g), strict=True):
            p.add_(size * v)
            x.neg_()
            if e is not None and not self.adversaries:
                x.add_(size * e)

    def scaled(self, params: Params, grad_of: GradOf) -> Grads:
        """The vector that w scales: theta, or the adversaries' gradient."""
        if not self.adversaries:
            return tuple(p.detach() for p in params)
        _, f = weighted_sum((1.0, grad_of(NLL(), on)) for on in self.adversaries)
        factor = norm(params) / norm(f)
        return tuple(factor * x for x in f)


def exact_penalty(reading: Reading, params: Params, loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """P = <g, v> as a differentiable graph, for double backward: the reference for ``Penalty``.

    It needs about three times the memory of a gradient, and the attention kernel
    ``torch.nn.attention.SDPBackend.MATH``: the fused kernels have no second derivative.
    """
    g = torch.autograd.grad(loss, list(params), create_graph=True)
    directions = reading(tuple(params), g)
    return torch.stack([(x * v).sum() for x, (v, _) in zip(g, directions, strict=True)]).sum()
