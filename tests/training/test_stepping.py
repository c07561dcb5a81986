"""A step moves the weights by finite gradients only, clipped only if that is set."""

import importlib.util
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from ilu.data.stream import Stream
from ilu.methods.forget.ascent import Ascent
from ilu.methods.forget.npo import NPO
from ilu.methods.retain.likelihood import NLL
from ilu.methods.robust.ilu import ScaleGradient, Square
from ilu.training.checkpoint import Checkpoints
from ilu.training.fit import Optim, fit
from ilu.training.objective import Term
from ilu.types import Example, Needs
from tests.conftest import make_tiny

EIGHT_BIT = pytest.mark.skipif(not importlib.util.find_spec("torchao"), reason="torchao is missing")
EXAMPLES = [Example([(i * k) % 31 + 1 for k in range(3, 9)], prompt=1) for i in range(1, 13)]
OPTIM = Optim(lr=1e-2, steps=4, weight_decay=0.1, clip=None, schedule="cosine")
FORGET = Term(NPO(0.1), on="forget")
RETAIN = Term(NLL(), on="retain", weight=0.7)
TWO = {"forget": FORGET, "retain": RETAIN}
SQUARE = Term(ScaleGradient(), on="retain", rule=Square())


def tied():
    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32}
    config = LlamaConfig(
        **sizes, num_hidden_layers=2, num_attention_heads=2, tie_word_embeddings=True
    )
    return LlamaForCausalLM(config).eval()


def trained(objective, optim, make=make_tiny, **given):
    model, rows = make(), []
    streams = {n: Stream(EXAMPLES[i:], 3, 0) for i, n in enumerate(("forget", "retain", "other"))}
    fit(model, objective, streams, optim, log=rows.append, **given)
    return model, rows


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


class Scaled:
    """A finite loss whose gradient overflows, or one that is not finite itself."""

    needs = Needs()

    def __init__(self, by):
        self.by = by

    def __call__(self, forward, reference, batch):
        value = forward(batch).logits.mean((1, 2))
        return value * self.by if math.isinf(self.by) else (value - value.detach()) * self.by


def error(objective, optim, **given):
    with pytest.raises(ValueError, match="became") as caught:
        trained(objective, optim, **given)
    return str(caught.value)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("by", [math.inf, 1e38])
def test_what_is_not_finite_ends_the_run_with_its_name(by, order):
    odd = Term(Scaled(by), on="forget", weight=1.0 if math.isinf(by) else 1e30)
    objective = dict([("odd", odd), ("retain", RETAIN)][::order])
    assert ("odd" if math.isinf(by) else "the gradient") in error(objective, OPTIM)


@pytest.mark.parametrize("order", [1, -1])
def test_a_loss_that_is_not_finite_moves_nothing(order):
    model = make_tiny()
    objective = dict([("odd", Term(Scaled(math.inf), on="forget")), ("retain", RETAIN)][::order])
    error(objective, OPTIM, make=lambda: model)
    assert same(model, make_tiny())


def test_after_a_gradient_that_is_not_finite_nothing_is_saved(tmp_path):
    points = Checkpoints(tmp_path / "c", every=1)
    optim = replace(OPTIM, lr=1e18, steps=50)
    error({"forget": Term(Ascent(), on="forget")}, optim, checkpoints=points)
    kept = points.latest()
    weights = load_file(kept / "weights.safetensors") if kept else {}
    assert all(x.isfinite().all() for x in weights.values())


def test_without_clipping_a_large_gradient_is_taken_as_it_is():
    after, rows = trained(TWO, OPTIM)
    clipped, _ = trained(TWO, replace(OPTIM, clip=0.1))
    free, _ = trained(TWO, replace(OPTIM, clip=1e9))
    assert rows[0]["grad_norm"] > 0.1
    assert same(after, free)
    assert not same(after, clipped)
