"""The kernels of the output layer give what float64 does: on a GPU, or in Triton's interpreter.

    TRITON_INTERPRET=1 pytest tests/kernel_trial.py     # without a GPU

Triton reads that variable when it is imported, which other tests do without it: so this file is not
collected with them, and ``test_kernel.py`` runs it in a process of its own.
"""

import pytest
import torch

from ilu.models import lm_head_loss as chunks
from ilu.models import lm_head_triton
from ilu.models.lm_head_loss import tokens_of
from ilu.types import Head, Outputs

# The interpreter computes with NumPy, which warns of what `where` then leaves out.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
V = 21
HEADS = {
    "plain": {},
    "bias": {"bias": True},
    "scaled": {"scale": 0.3},
    "capped": {"bias": True, "scale": 2.0, "cap": 3.0},
}
BLOCKS = {
    "one block": {},
    "blocks that divide nothing": {"KEPT": 0, "BLOCK": 55, "DEVICE_BLOCK": 55, "ROWS": 5},
}
READ = {
    "logp": lambda t: t.logp,
    "gap": lambda t: (-t.logp - t.entropy).sum(-1).square() / 10,
}


@pytest.fixture(params=BLOCKS)
def used(request, monkeypatch):
    """Which kernels ran; rows end within a tile, blocks hold several."""
    for name, value in BLOCKS[request.param].items():
        monkeypatch.setattr(chunks, name, value)
    monkeypatch.setattr(lm_head_triton, "TILE", 8)
    monkeypatch.setattr(lm_head_triton, "serves", lambda z: z.dtype != torch.float64)
    seen = set()
    for f in (lm_head_triton.add_block, lm_head_triton.logit_gradient):
        monkeypatch.setattr(
            lm_head_triton, f.__name__, lambda *a, f=f, **k: seen.add(f.__name__) or f(*a, **k)
        )
    return seen


def made(kind="bias", dtype=torch.float32):
    """Outputs of 3 x 4 positions, 3 of which do not count, and the leaves they depend on."""
    torch.manual_seed(0)
    extra = dict(HEADS[kind])
    leaves = [torch.randn(3, 4, 6), 2 * torch.randn(V, 6)]
    leaves += [torch.randn(V)] if extra.pop("bias", False) else []
    leaves = [x.to(DEVICE, dtype).requires_grad_() for x in leaves]
    targets = torch.randint(0, V, (3, 4), device=DEVICE)
    targets[0, :2], targets[2, 3:] = -100, -100
    return Outputs(leaves[0], targets, Head(*leaves[1:], **extra)), leaves


def found(out, leaves, read):
    """A value of the tokens, and the gradients of an uneven sum of it."""
    value = read(tokens_of(out, entropy=True))
    uneven = torch.linspace(-1, 2, value.numel(), device=value.device).view(value.shape)
    return [value, *torch.autograd.grad((value * uneven).sum(), leaves)]


def close(ours, theirs, **tolerance):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.double(), b.double(), **tolerance)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("what", READ)
def test_values_and_gradients_are_those_of_float64(kind, what, used):
    exact = found(*made(kind, torch.float64), READ[what])
    assert used == set()
    ours = found(*made(kind), READ[what])
    assert used == {"add_block", "logit_gradient"}
    close(ours, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_as_by_pytorch(dtype, used, monkeypatch):
    ours = found(*made("capped", dtype), READ["gap"])
    assert used == {"add_block", "logit_gradient"}
    monkeypatch.setattr(lm_head_triton, "serves", lambda z: False)
    theirs = found(*made("capped", dtype), READ["gap"])
    assert [x.dtype for x in ours] == [x.dtype for x in theirs]
    close(ours[:1], theirs[:1], rtol=1e-5, atol=1e-6)
    close(ours[1:], theirs[1:], rtol=2e-2, atol=2e-2 * float(theirs[1].abs().max()))


def test_large_logits_lose_no_digits(used):
    pair = [made(dtype=dtype) for dtype in (torch.float32, torch.float64)]
    with torch.no_grad():
        for _, leaves in pair:
            leaves[1].mul_(20)
    ours, exact = (found(*each, lambda t: torch.stack([t.logp, t.entropy]))[:1] for each in pair)
    close(ours, exact, rtol=1e-5, atol=1e-5)


def test_only_one_of_the_two_has_a_gradient(used):
    """Log-probabilities without entropies, where there are no entropies to differentiate."""
    pair = []
    for dtype in (torch.float32, torch.float64):
        out, leaves = made("capped", dtype)
        value = tokens_of(out).logp
        pair.append([value, *torch.autograd.grad(value.sum(), leaves)])
    close(*pair, rtol=1e-4, atol=1e-5)


def test_logits_of_minus_infinity_are_no_part_of_the_vocabulary(used):
    """The first block holds nothing else."""
    out, leaves = made()
    small, fewer = made(dtype=torch.float64)
    missing = 13
    with torch.no_grad():
        leaves[2][:missing] = -torch.inf
    targets = out.targets.where(out.targets < 0, missing + out.targets % (V - missing))
    head = Head(*(x[missing:] for x in fewer[1:]))
    less = Outputs(small.states, targets.where(targets < 0, targets - missing), head)
    ours = found(Outputs(out.states, targets, out.head), leaves, READ["gap"])
    assert all(g[:missing].abs().max() == 0 for g in ours[2:])
    close(ours, found(less, fewer, READ["gap"]), rtol=1e-4, atol=1e-5)


def test_what_is_not_a_number_stays_so(used):
    out, leaves = made()
    with torch.no_grad():
        leaves[2][-1] = torch.nan
    assert tokens_of(out, entropy=True).logp[1].isnan().all()


def test_the_backward_pass_may_be_taken_twice(used):
    """What is kept for it is not written over."""
    out, leaves = made()
    value = tokens_of(out, entropy=True).logp.square().sum()
    twice = [torch.autograd.grad(value, leaves, retain_graph=True) for _ in range(2)]
    close(*twice, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_device_is_trusted_for_what_it_computes(dtype, monkeypatch):
    assert lm_head_triton.agrees(torch.device(DEVICE), dtype)
    exact = lm_head_triton.logit_gradient
    monkeypatch.setattr(
        lm_head_triton, "logit_gradient", lambda z, *a, **k: (exact(z, *a, **k), z.mul_(1.1))
    )
    assert not lm_head_triton.agrees(torch.device(DEVICE), dtype)
