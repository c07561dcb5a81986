"""Weights that move within the backward pass go where they go after it, and refuse what cannot."""

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
from ilu.methods.forget.rmu import RMU
from ilu.methods.retain.likelihood import KL, NLL
from ilu.methods.robust.ilu import ScaleGradient, Square
from ilu.methods.robust.rules import SAM
from ilu.recipes.build import build
from ilu.system.distributed import Ranks
from ilu.system.seeds import seeded
from ilu.training.checkpoint import Checkpoints
from ilu.training.fit import Optim, Stopped, check_training, fit
from ilu.training.objective import Term
from ilu.training.optim import adamw
from ilu.training.optim.stepping import Fused
from ilu.types import Example
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


CASES = {
    "one term": ({"retain": Term(KL(), on="retain")}, {}, make_tiny),
    "terms in one pass": ({**TWO, "forget": replace(FORGET, on="retain")}, {}, make_tiny),
    "two passes": (TWO, {}, make_tiny),
    "three passes, the last squared": ({**TWO, "i": replace(SQUARE, on="other")}, {}, make_tiny),
    "after a rule": ({**TWO, "forget": replace(FORGET, rule=SAM(0.1))}, {}, make_tiny),
    "relative": ({**TWO, "retain": replace(RETAIN, relative_to="forget")}, {}, make_tiny),
    "micro-batches": (TWO, {"micro_batch": 2}, make_tiny),
    "recompute": (TWO, {"recompute": True}, make_tiny),
    "bfloat16 passes": (TWO, {"precision": "bfloat16"}, make_tiny),
    "tied": (TWO, {"recompute": True}, tied),
    "blocks that the last pass does not reach": (
        {"retain": RETAIN, "forget": Term(RMU(layer=0), on="forget")}, {}, make_tiny,
    ),
    "some weights, others in reach": (
        {**TWO, "forget": replace(FORGET, rule=SAM(0.1))},
        {"parameters": r"1\.mlp\.down", "perturbed": "mlp"}, make_tiny,
    ),
    "averaged": (TWO, {"average_from": 2, "average_every": 1}, make_tiny),
    "descent": (TWO, {"optimizer": "sgd"}, make_tiny),
    "8 bits": pytest.param(
        TWO, {"optimizer": "adamw8bit"}, lambda: make_tiny(256), marks=EIGHT_BIT
    ),
}  # fmt: skip


@pytest.mark.parametrize(("objective", "settings", "make"), CASES.values(), ids=CASES)
def test_the_same_weights_and_the_same_log_to_the_bit(objective, settings, make):
    optim = replace(OPTIM, **settings)
    after, rows = trained(objective, optim, make)
    within, seen = trained(objective, replace(optim, fused_backward=True), make)
    assert same(after, within)
    assert rows == seen
    assert rows[0]["grad_norm"] > 0
    assert not same(after, make())
    assert all(p.grad is None for p in within.parameters())


def watched(monkeypatch):
    """Each weight that moves, and how many gradients there are when it does."""
    seen: list[tuple[str, int, int]] = []
    real = Fused.move

    def move(self, name, step, rate):
        count = sum(p.grad is not None for p in self.free.whole.values())
        seen.append((name, step, count))
        real(self, name, step, rate)

    monkeypatch.setattr(Fused, "move", move)
    return seen


@pytest.mark.parametrize("make", [make_tiny, tied])
def test_in_one_pass_there_is_one_gradient_at_a_time_and_each_weight_moves_once(make, monkeypatch):
    seen = watched(monkeypatch)
    model, _ = trained({"retain": RETAIN}, replace(OPTIM, fused_backward=True), make)
    assert {count for _, _, count in seen} == {1}
    names = {n for n, _ in model.named_parameters()}
    assert sorted((n, s) for n, s, _ in seen) == sorted((n, s) for n in names for s in range(4))


def test_gradients_of_earlier_passes_are_kept_until_their_weight_moves(monkeypatch):
    seen = watched(monkeypatch)
    model, _ = trained(TWO, replace(OPTIM, steps=1, fused_backward=True))
    every = len(list(model.parameters()))
    assert [count for _, _, count in seen] == list(range(every, 0, -1))


@pytest.mark.parametrize("fused", [False, True])
def test_checkpoints_of_both_are_the_same_bytes_and_continue_each_other(fused, tmp_path):
    optims = [replace(OPTIM, fused_backward=f) for f in (fused, not fused)]
    folders = [tmp_path / "a", tmp_path / "b"]
    for optim, folder in zip(optims, folders, strict=True):
        seen = []
        with pytest.raises(Stopped):
            trained(TWO, optim, checkpoints=Checkpoints(folder),
                    stop=lambda seen=seen: seen.append(0) or len(seen) == 2)  # fmt: skip
    saved = [{p.name: p.read_bytes() for p in f.glob("*/*")} for f in folders]
    assert saved[0] == saved[1]
    assert load_file(folders[0] / "000000002" / "optimizer.safetensors")
    resumed, rest = trained(TWO, optims[1], checkpoints=Checkpoints(folders[0]))
    whole, rows = trained(TWO, optims[0])
    assert same(resumed, whole)
    assert rest == rows[2:]


@EIGHT_BIT
def test_in_bfloat16_every_weight_is_rounded_by_numbers_of_its_own(monkeypatch):
    optim = replace(OPTIM, optimizer="adamw-bf16", fused_backward=True, lr=1e-3)
    seeds: list[int] = []

    def noted(seed, device):
        seeds.append(seed)
        return seeded(seed, device)

    monkeypatch.setattr(adamw, "seeded", noted)
    (a, rows), (b, again) = (trained(TWO, optim) for _ in range(2))
    assert len(seeds) == 2 * len(set(seeds)) == 2 * 4 * len(list(a.parameters()))
    assert same(a, b)
    assert rows == again


class Scaled:
    """A finite loss whose gradient overflows, or one that is not finite itself."""

    needs_reference = False

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
def test_what_is_not_finite_ends_the_run_with_the_same_words(by, order, tmp_path):
    odd = Term(Scaled(by), on="forget", weight=1.0 if math.isinf(by) else 1e30)
    objective = dict([("odd", odd), ("retain", RETAIN)][::order])
    words = [error(objective, replace(OPTIM, fused_backward=f)) for f in (False, True)]
    assert words[0] == words[1]
    assert ("odd" if math.isinf(by) else "the gradient") in words[0]


@pytest.mark.parametrize("order", [1, -1])
def test_a_loss_that_is_not_finite_moves_nothing(order):
    model = make_tiny()
    objective = dict([("odd", Term(Scaled(math.inf), on="forget")), ("retain", RETAIN)][::order])
    error(objective, replace(OPTIM, fused_backward=True), make=lambda: model)
    assert same(model, make_tiny())


def test_after_a_gradient_that_is_not_finite_nothing_is_saved(tmp_path):
    """Weights may have moved before it was seen, as the error comes when all gradients are."""
    points = Checkpoints(tmp_path / "c", every=1)
    optim = replace(OPTIM, lr=1e18, steps=50, fused_backward=True)
    error({"forget": Term(Ascent(), on="forget")}, optim, checkpoints=points)
    kept = points.latest()
    weights = load_file(kept / "weights.safetensors") if kept else {}
    assert all(x.isfinite().all() for x in weights.values())


REFUSED = {
    "--clip None": {"clip": 1.0},
    "use adamw, sgd, adamw8bit or adamw-bf16": {"optimizer": "sophia"},
    "leave out `micro_batch`": {"micro_batch": 2},
    "leave out `mask`": {"mask": True},
    "in one process": {"ranks": Ranks(0, 2)},
    "rule of term 'last' comes after it": {"last": Term(NLL(), on="retain", rule=SAM())},
}


@pytest.mark.parametrize("way_out", REFUSED)
def test_what_needs_more_than_one_gradient_is_refused_with_a_way_out(way_out):
    given = dict(REFUSED[way_out])
    model, last = make_tiny(), given.pop("last", SQUARE)
    mask = {n: p > 0 for n, p in model.named_parameters()} if given.pop("mask", False) else None
    ranks = given.pop("ranks", Ranks())
    optim = replace(OPTIM, fused_backward=True, **given)
    with pytest.raises(ValueError, match=f"--fused-backward .*{way_out}"):
        check_training(model, {**TWO, "last": last}, optim, mask, ranks)
    given = {"model": "lab", "fused_backward": True, "clip": None}
    with pytest.raises(ValueError, match="leave out `mask` or `fused_backward`"):
        build("npo", {**given, "mask": "snip:0.5"})
    assert build("npo", given).optim.fused_backward
    check_training(model, {**TWO, "last": SQUARE}, replace(OPTIM, fused_backward=True), None)
    check_training(model, {}, replace(OPTIM, fused_backward=True), None)


def test_without_clipping_a_large_gradient_is_taken_as_it_is():
    after, rows = trained(TWO, OPTIM)
    clipped, _ = trained(TWO, replace(OPTIM, clip=0.1))
    free, _ = trained(TWO, replace(OPTIM, clip=1e9))
    assert rows[0]["grad_norm"] > 0.1
    assert same(after, free)
    assert not same(after, clipped)
