"""The output layer in blocks: every value and gradient is that of whole logits."""

from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from ilu.methods.forget.npo import NPO
from ilu.models import lm_head_loss as chunks
from ilu.models.forward import Frozen, ModelForward
from ilu.models.lm_head import head_of
from ilu.models.lm_head_loss import per_token, tokens_of
from ilu.models.token_math import token_jsd, token_kl
from ilu.types import Head, Outputs, Tokens
from tests.build import batch, ignore, pad_right, shorten
from tests.close import assert_same_to_rounding
from tests.conftest import make_tiny
from tests.models.test_families import FAMILIES, SIZE

HEADS = {
    "plain": {},
    "bias": {"bias": True},
    "scaled": {"scale": 0.3},
    "capped": {"bias": True, "scale": 2.0, "cap": 3.0},
}
SIZES = {
    "kept": {},
    "again": {"KEPT": 0},
    "blocks": {"KEPT": 0, "BLOCK": 20, "ROWS": 4, "CHUNK": 4},
}


@pytest.fixture(params=SIZES)
def sizes(request, monkeypatch):
    """Everything in one block; the same, computed twice; many small blocks."""
    for name, value in SIZES[request.param].items():
        monkeypatch.setattr(chunks, name, value)


def made(kind, dtype=torch.float64, spread=1.0):
    """Outputs of 3 x 5 positions, 4 of which do not count, and the leaves they depend on."""
    torch.manual_seed(0)
    states = torch.randn(3, 5, 6, dtype=dtype, requires_grad=True)
    weight = (spread * torch.randn(17, 6, dtype=dtype)).requires_grad_()
    extra = dict(HEADS[kind])
    bias = torch.randn(17, dtype=dtype, requires_grad=True) if extra.pop("bias", False) else None
    targets = torch.randint(0, 17, (3, 5))
    targets[0, :2], targets[2, 3:] = -100, -100
    leaves = [x for x in (states, weight, bias) if x is not None]
    return Outputs(states, targets, Head(weight, bias, **extra)), leaves


def compare(ours, whole, leaves, **tolerance):
    """The same values, and the same gradients of an uneven sum of them."""
    torch.testing.assert_close(ours, whole, **tolerance)
    uneven = torch.linspace(-1, 2, ours.numel(), dtype=ours.dtype).view(ours.shape)
    pair = [torch.autograd.grad((x * uneven).sum(), leaves) for x in (ours, whole)]
    for a, b in zip(*pair, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("what", ["logp", "entropy", "gap", "npo"])
def test_tokens_are_those_of_whole_logits(kind, what, sizes):
    out, leaves = made(kind)
    both = [tokens_of(o, entropy=True) for o in (out, Outputs(out.logits, out.targets))]
    read = {
        "logp": lambda t: t.logp,
        "entropy": lambda t: t.entropy,
        "gap": lambda t: (-t.logp - t.entropy).sum().square(),
        "npo": lambda t: F.logsigmoid(0.1 * t.sum()),
    }[what]
    compare(*map(read, both), leaves)


def test_the_gradient_is_that_of_differences(sizes):
    out, leaves = made("capped")

    def f(states, weight, bias):
        made_of = Outputs(states, out.targets, out.head._replace(weight=weight, bias=bias))
        tokens = tokens_of(made_of, entropy=True)
        return tokens.logp, tokens.entropy

    assert torch.autograd.gradcheck(f, leaves)


@pytest.mark.parametrize("f", [token_kl, token_jsd])
def test_any_function_of_two_predictions_is_taken_in_chunks(f, sizes, monkeypatch):
    out, leaves = made("capped")
    other, more = made("plain")
    with torch.no_grad():
        for x in more:
            x.mul_(0.7)
    ours = per_token(f, out, other)
    whole = f(out.logits, other.logits).where(out.targets != -100, 0.0)
    compare(ours, whole, [*leaves, *more])


def test_large_logits_lose_no_digits(sizes):
    """Sum p z - z_y would: its terms are a hundred times its value."""
    out, _ = made("plain", torch.float32, spread=20.0)
    exact, _ = made("plain", torch.float64, spread=20.0)
    exact = Outputs(out.states.double(), out.targets, Head(out.head.weight.double()))
    ours, theirs = (tokens_of(o, entropy=True) for o in (out, exact))
    torch.testing.assert_close(ours.logp.double(), theirs.logp, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(ours.entropy.double(), theirs.entropy, rtol=1e-5, atol=2e-5)


def test_only_what_has_a_gradient_gets_one():
    """A frozen output layer, as with adapters and RMU, costs no gradient of its size."""
    out, (states, weight) = made("plain")
    weight.requires_grad_(False)
    tokens_of(out).logp.sum().backward()
    assert weight.grad is None
    assert states.grad.abs().sum() > 0


def test_a_second_derivative_is_refused_and_not_wrong(tiny):
    loss = ModelForward(tiny).tokens(batch()).sum().sum()
    with pytest.raises(RuntimeError, match="all_logits=True"):
        torch.autograd.grad(loss, list(tiny.parameters()), create_graph=True)


def test_no_tensor_as_large_as_the_logits_is_made(monkeypatch):
    monkeypatch.setattr(chunks, "KEPT", 0)
    monkeypatch.setattr(chunks, "BLOCK", 256)
    seen = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            seen.extend(x.numel() for x in torch.utils._pytree.tree_leaves(out)
                        if isinstance(x, torch.Tensor))  # fmt: skip
            return out

    states = torch.randn(4, 16, 8, requires_grad=True)
    weight = torch.randn(500, 8, requires_grad=True)
    out = Outputs(states, torch.randint(0, 500, (4, 16)), Head(weight))
    with Sizes():
        tokens_of(out, entropy=True).logp.sum().backward()
    assert max(seen) == weight.numel() < 4 * 16 * 500


# Models.

NEW = {
    "gemma2, capped and tied": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SIZE, head_dim=8, final_logit_softcapping=2.0)
    ),
    "cohere, scaled and tied": lambda: CohereForCausalLM(CohereConfig(**SIZE, pad_token_id=0)),
    "granite, divided": lambda: GraniteForCausalLM(GraniteConfig(**SIZE, logits_scaling=7.0)),
    "phi, with a bias": lambda: PhiForCausalLM(PhiConfig(**SIZE)),
}


class Odd(nn.Module):
    """A Llama that does to its logits what no configuration tells."""

    def __init__(self):
        super().__init__()
        self.inner = make_tiny()
        self.config = self.inner.config

    def get_output_embeddings(self):
        return self.inner.lm_head

    def forward(self, **inputs):
        out = self.inner(**inputs)
        out.logits = 30 * (out.logits / 30).tanh()
        return out


@pytest.fixture(params=[*FAMILIES, *NEW])
def model(request):
    torch.manual_seed(1)
    found = {**FAMILIES, **NEW}[request.param]().eval()
    with torch.no_grad():
        for p in found.parameters():
            p.mul_(3.0)  # so that a soft cap has something to cap
            p.add_(0.1 * torch.randn_like(p))
    return found


def check_model(model):
    b = pad_right(shorten(ignore(batch(), slice(1, 2), slice(0, 5)), row=0, by=3), 2)
    params = list(model.parameters())
    whole = ModelForward(model, all_logits=True).tokens(b, entropy=True)
    ours = ModelForward(model).tokens(b, entropy=True)
    for x, y in ((ours.logp, whole.logp), (ours.entropy, whole.entropy)):
        assert_same_to_rounding(x, y)
        pair = (torch.autograd.grad(v.sum(), params, retain_graph=True, allow_unused=True)
                for v in (x, y))  # fmt: skip
        for a, b_ in zip(*pair, strict=True):
            assert (a is None) == (b_ is None)
            if a is not None:
                assert (a - b_).norm() <= 1e-4 * b_.norm().clamp_min(1e-4)


def test_every_family_goes_through_its_head_in_blocks(model, monkeypatch):
    monkeypatch.setattr(chunks, "KEPT", 0)
    monkeypatch.setattr(chunks, "BLOCK", 64)
    assert head_of(model) is not None
    check_model(model)


def test_what_no_configuration_tells_is_left_to_the_model():
    model = Odd().eval()
    assert head_of(model) is None
    check_model(model)


def test_a_layer_that_became_another_is_left_to_the_model(tiny):
    """Tried once, but looked at each time: it may have been adapted or sharded since."""
    assert head_of(tiny) is not None
    tiny.lm_head = nn.Sequential(tiny.lm_head)
    assert head_of(tiny) is None
    check_model(tiny)


@pytest.mark.parametrize("half", ["autocast", "weights"])
def test_half_precision_is_that_of_the_model_itself(half, sizes):
    torch.manual_seed(2)
    model, b = make_tiny(), batch()
    model = model.bfloat16() if half == "weights" else model
    params, found = list(model.parameters()), []
    for whole in (False, True):
        forward = ModelForward(model, autocast=half == "autocast", all_logits=whole)
        tokens = forward.tokens(b, entropy=True)
        assert tokens.logp.dtype == tokens.entropy.dtype == torch.float32
        value = (tokens.logp - tokens.entropy).sum()
        grads = torch.autograd.grad(value, params)
        assert [g.dtype for g in grads] == [p.dtype for p in params]
        found.append((tokens, torch.cat([g.flatten().float() for g in grads])))
    (ours, a), (theirs, g) = found
    assert_same_to_rounding(ours.logp, theirs.logp, 2**-8)
    assert (a - g).norm() < 0.03 * g.norm()


# What the reference remembers.


def counted(tiny, monkeypatch):
    rows = []
    forward = ModelForward._run
    monkeypatch.setattr(
        ModelForward, "_run", lambda self, b: rows.append(len(b)) or forward(self, b)
    )
    return Frozen(tiny, {}), rows


def test_the_reference_reads_a_text_once_whatever_its_padding(tiny, monkeypatch):
    reference, rows = counted(tiny, monkeypatch)
    b = shorten(batch(examples=4), row=0, by=3)
    first = reference.tokens(b).logp
    assert rows == [4]
    again = reference.tokens(pad_right(b, 3)).logp
    assert rows == [4]
    assert torch.equal(again[:, :7], first)
    assert again[:, 7:].abs().max() == 0
    other = batch(seed=1, examples=2)
    mixed = type(b)(*(torch.cat([getattr(x, n)[:2] for x in (b, other)])
                      for n in ("input_ids", "attention_mask", "labels")))  # fmt: skip
    found = reference.tokens(mixed)
    assert rows == [4, 2]
    expected = ModelForward(tiny, all_logits=True).tokens(mixed)
    torch.testing.assert_close(found.logp, expected.logp)
    assert torch.equal(found.valid, expected.valid)


def test_other_labels_are_another_text(tiny, monkeypatch):
    reference, rows = counted(tiny, monkeypatch)
    reference.tokens(batch())
    fewer = ignore(batch(), slice(None), slice(2, 4))
    torch.testing.assert_close(
        reference.tokens(fewer).logp, ModelForward(tiny, all_logits=True).tokens(fewer).logp
    )
    assert rows[:2] == [3, 3]


def test_what_is_remembered_survives_a_checkpoint(tiny, monkeypatch):
    reference, rows = counted(tiny, monkeypatch)
    value = NPO()(ModelForward(tiny), reference, batch())
    later = Frozen(tiny, {})
    later.cache.restore(reference.cache.state())
    rows.clear()
    assert torch.equal(NPO()(ModelForward(tiny), later, batch()), value)
    assert rows == [3]  # the model alone
    assert Frozen(tiny, {}).cache.state() == {}
    Frozen(tiny, {}).cache.restore({})


def test_what_was_read_under_autocast_is_no_answer_without(tiny):
    cache = Frozen(tiny, {}).cache
    half = Frozen(tiny, {}, autocast=True, cache=cache).tokens(batch()).logp
    exact = Frozen(tiny, {}, cache=cache).tokens(batch()).logp
    assert not torch.equal(half, exact)
    torch.testing.assert_close(exact, ModelForward(tiny, all_logits=True).tokens(batch()).logp)


def test_what_is_remembered_lies_in_host_memory_and_comes_back_on_the_device_of_the_batch():
    """With the device ``meta`` for the batch: what it holds cannot be read, only where it is."""
    cache = Frozen(nn.Linear(1, 1), {}).cache
    b = batch(examples=2)
    cache.tokens(b, lambda part: Tokens(torch.zeros(len(part), 7), part.labels[:, 1:] >= 0))
    assert {row.device.type for row in cache.known.values()} == {"cpu"}
    elsewhere = type(b)(b.input_ids, b.attention_mask, b.labels.to("meta"))
    with patch("ilu.models.reference_cache.keys_of", return_value=[*cache.known]):
        found = cache.tokens(elsewhere, lambda part: pytest.fail("all texts are known"))
    assert found.logp.device.type == found.valid.device.type == "meta"
