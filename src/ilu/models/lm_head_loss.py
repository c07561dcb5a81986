"""From hidden states to values per token, without the logits of all of them.

Only positions with a target that counts go through the output layer, and of their logits a block of
rows and vocabulary exists at a time. What is small is kept for the backward pass; what is large is
computed again there, for a third more products. On a GPU a block is read by ``kernel.py``.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ilu.models import lm_head_triton
from ilu.models.token_math import answered, at_least_float32, token_entropy, token_logp
from ilu.types import Head, Outputs, Tokens

KEPT = 2**23
"""So many logits are kept from the forward to the backward pass: at most 32 MiB."""
BLOCK, DEVICE_BLOCK = 2**20, 2**26
"""Number of logits that exist at a time: as many as fit a processor's cache, or keep a GPU busy."""
ROWS = 2048
"""At most so many positions at a time."""
CHUNK = 256
"""At least so many, where autograd adds up the gradient of the whole output layer for each."""


def tokens_of(out: Outputs, *, entropy: bool = False) -> Tokens:
    """Log-probability of the targets and, if wanted, entropy of their predictions.

    Exact in value and gradient; a second derivative needs logits (``ModelForward.all_logits``).
    """
    valid = answered(out.targets)
    if out.head is None:
        logp, _ = token_logp(out.states, out.targets)
        each = token_entropy(out.states).where(valid, 0.0) if entropy else None
        return Tokens(logp, valid, each)
    rows = out.states[valid]
    logp, found = cast(
        tuple[Tensor, Tensor],
        TokenStatistics.apply(rows, *out.head[:2], out.targets[valid], out.head, entropy),
    )
    return Tokens(placed(logp, valid), valid, placed(found, valid) if entropy else None)


def per_token(f: Callable[..., Tensor], *outs: Outputs) -> Shaped[Tensor, "B S"]:
    """``f`` of the logits that each of ``outs`` has for the same target; 0 where none counts.

    Any function of rows of logits (N, V) with one value for each; its rows are taken in chunks.
    """
    valid = answered(outs[0].targets)
    states, heads = [out.states[valid] for out in outs], [out.head for out in outs]

    def values(*parts: Tensor) -> Tensor:
        return f(*(p if h is None else h(p) for p, h in zip(parts, heads, strict=True)))

    vocabulary, count = outs[0].vocabulary, int(valid.sum())
    if count * vocabulary <= KEPT:
        return placed(values(*states), valid)
    size = max(CHUNK, block_size(valid.device) // vocabulary)
    parts = zip(*(rows.split(size) for rows in states), strict=True)
    each = [cast(Tensor, checkpoint(values, *part, use_reentrant=False)) for part in parts]
    return placed(torch.cat(each), valid)


def placed(values: Shaped[Tensor, " N"], valid: Bool[Tensor, "B S"]) -> Shaped[Tensor, "B S"]:
    """One value for each valid position, in its place."""
    return values.new_zeros(valid.shape).masked_scatter(valid, values)


class TokenStatistics(torch.autograd.Function):
    """log p_y and H(p) of rows of states, with p = softmax(head(h)).

    d log p_y / dz_k = [k = y] - p_k and dH / dz_k = -p_k (log p_k + H): both are functions of a
    block of logits z and of lse and H of its rows, so the backward pass needs nothing larger.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Float[Tensor, "N D"],
        weight: Float[Tensor, "V D"],
        bias: Float[Tensor, " V"] | None,
        targets: Int[Tensor, " N"],
        head: Head,
        entropy: bool,
    ) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
        """Return log p_y and, if wanted, H."""
        keep = len(rows) * len(weight) <= KEPT and any(ctx.needs_input_grad[:3])
        softmax, kept = RunningSoftmax(rows, targets, entropy), list[Tensor]()
        for r, c in blocks_of(len(rows), len(weight), rows.device):
            z = block_logits(head, rows[r], c)
            softmax.add(z, r, c)
            kept += [z] if keep else []
        lse, h = softmax.result()
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(rows, weight, bias, targets, lse, h, *kept)
        ctx.rest = head[2:]
        return softmax.picked - lse, h

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of the rows, the weight and the bias."""
        if torch.is_grad_enabled():  # create_graph: torch would take this gradient for a constant
            raise RuntimeError(
                "a second derivative needs all logits: ModelForward(all_logits=True)"
            )
        rows, weight, bias, targets, lse, entropy, *kept = ctx.saved_tensors
        head, saved = Head(weight, bias, *ctx.rest), iter(kept)
        d_rows = torch.zeros_like(at_least_float32(rows))
        d_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        d_bias = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        for r, c in blocks_of(len(rows), len(weight), rows.device):
            z = next(saved) if kept else block_logits(head, rows[r], c)
            of = OfRows(lse[r], entropy[r], *(None if g is None else g[r] for g in grads))
            dz = block_gradient(head, z, targets[r] - c.start, of, keep=bool(kept))
            d_rows[r] += dz @ weight[c].to(dz.dtype)
            if d_weight is not None:
                d_weight[c] += dz.T @ rows[r].to(dz.dtype)
            if d_bias is not None:
                d_bias[c] += dz.sum(0)
        return d_rows.to(rows.dtype), d_weight, d_bias, None, None, None


class RunningSoftmax:
    """log-sum-exp and entropy of rows of logits that come block by block (arXiv 1805.02867).

    With m the largest logit so far: s = sum e^(z - m), u = sum e^(z - m) (z - m); in the end
    lse = m + log s and H = log s - u / s, free of cancellation for large logits.
    """

    def __init__(self, rows: Tensor, targets: Tensor, entropy: bool) -> None:
        self.targets, self.entropy = targets, entropy
        self.state = at_least_float32(rows[:, :0]).new_zeros(4, len(rows))
        self.m, self.s, self.u, self.picked = self.state
        self.m.fill_(-torch.inf)

    def add(self, z: Float[Tensor, "R C"], r: slice, c: slice) -> None:
        """Take a block of rows ``r`` and columns ``c``."""
        y = self.targets[r] - c.start
        if lm_head_triton.serves(z):
            return lm_head_triton.add_block(z, y, self.state[:, r], entropy=self.entropy)
        top = torch.maximum(self.m[r], z.amax(-1))
        fall = self.m[r] - top
        above = z - top[:, None]
        e = above.exp() if self.entropy else above.exp_()
        if self.entropy:
            before = self.u[r] + fall.where(fall.isfinite(), 0.0) * self.s[r]
            self.u[r] = fall.exp() * before + above.mul_(e).sum(-1)
        self.s[r] = fall.exp() * self.s[r] + e.sum(-1)
        self.m[r] = top
        at, inside = within(y, z.shape[1])
        self.picked[r] += z.gather(1, at).where(inside, 0.0)[:, 0]

    def result(self) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
        """lse and H, which has no meaning if it was not requested."""
        return self.m + self.s.log(), self.s.log() - self.u / self.s


class OfRows(NamedTuple):
    """What the gradient of a log p_y + b H needs to know of each row."""

    lse: Float[Tensor, " R"]
    entropy: Float[Tensor, " R"]
    a: Float[Tensor, " R"] | None
    b: Float[Tensor, " R"] | None


def blocks_of(rows: int, vocabulary: int, device: torch.device) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of each block; the columns change last, so their weights are read once."""
    high = max(1, min(rows, ROWS))
    wide = max(1, block_size(device) // high)
    for c in range(0, vocabulary, wide):
        for r in range(0, rows, high):
            yield slice(r, min(r + high, rows)), slice(c, min(c + wide, vocabulary))


def block_size(device: torch.device) -> int:
    """How many logits exist at a time."""
    return BLOCK if device.type == "cpu" else DEVICE_BLOCK


def block_logits(head: Head, rows: Float[Tensor, "R D"], c: slice) -> Float[Tensor, "R C"]:
    """Logits of the columns ``c``, in the precision of the product."""
    bias = None if head.bias is None else head.bias[c]
    return head._replace(weight=head.weight[c], bias=bias)(rows)


def block_gradient(
    head: Head, z: Float[Tensor, "R C"], y: Int[Tensor, " R"], of: OfRows, *, keep: bool
) -> Float[Tensor, "R C"]:
    """Gradient of the product that gave ``z``, in its precision; in place of ``z`` if allowed."""
    if not lm_head_triton.serves(z):
        return linear_gradient(head, logits_gradient(z, y, of), z)
    grads = (torch.zeros_like(of.lse) if g is None else g for g in of[2:])
    out, of_row = torch.empty_like(z) if keep else z, torch.stack([*of[:2], *grads], 1)
    lm_head_triton.logit_gradient(
        z, y, of_row, out, entropy=of.b is not None, scale=head.scale, cap=head.cap
    )
    return out


def logits_gradient(
    z: Float[Tensor, "R C"], y: Int[Tensor, " R"], of: OfRows
) -> Float[Tensor, "R C"]:
    """[k = y] a - p_k (a + b (log p_k + H))."""
    a, b = (None if g is None else g[:, None] for g in (of.a, of.b))
    logp = z - of.lse[:, None]
    if b is None:
        dz = logp.exp_().mul_(0.0 if a is None else -a)
    else:
        p = logp.exp()
        dz = logp.add_(of.entropy[:, None]).mul_(-b).sub_(0.0 if a is None else a).mul_(p)
    if a is None:
        return dz
    at, inside = within(y, z.shape[1])
    return dz.scatter_add_(1, at, a.where(inside, 0.0))


def linear_gradient(
    head: Head, dz: Float[Tensor, "R C"], z: Float[Tensor, "R C"]
) -> Float[Tensor, "R C"]:
    """From the gradient of logits to that of the linear map, in its precision."""
    if head.cap is not None:
        dz = dz * (1 - (at_least_float32(z) / head.cap).square())
    dz = dz if head.scale == 1 else dz * head.scale
    return dz.to(head.dtype or head.weight.dtype)


def within(y: Int[Tensor, " R"], columns: int) -> tuple[Int[Tensor, "R 1"], Bool[Tensor, "R 1"]]:
    """Place of each target among the columns, and whether it is there."""
    return y.clamp(0, columns - 1)[:, None], ((y >= 0) & (y < columns))[:, None]
