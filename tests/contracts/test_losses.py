"""Every loss in the package obeys the Loss contract. A new file is picked up by itself."""

import importlib
import inspect
import pkgutil
from dataclasses import dataclass, field, replace

import pytest
import torch

import ilu.methods.forget
import ilu.methods.retain
import ilu.methods.robust
from ilu.cli.catalogue import LOSS, arguments
from ilu.data.stream import Feed, Stream, split
from ilu.methods.forget.lat import LatentAttack
from ilu.models import lm_head_loss
from ilu.models.forward import Frozen, ModelForward
from ilu.models.lm_head_loss import tokens_of
from ilu.models.packing import attending_to_each_text
from ilu.runs.memory.model_shape import shape_of
from ilu.runs.memory.peak import peak_memory
from ilu.runs.recipe import Recipe
from ilu.training.fit import fit
from ilu.training.objective import Term
from ilu.types import Batch, Example, Loss
from tests.build import batch, ignore, pad_right, shorten, with_others
from tests.close import assert_same_to_rounding
from tests.conftest import make_tiny
from tests.runs.test_memory import LENGTH, OPTIM, llama, peak_bytes


def losses():
    for package in (ilu.methods.forget, ilu.methods.retain, ilu.methods.robust):
        for info in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            for _, cls in inspect.getmembers(importlib.import_module(info.name), inspect.isclass):
                if cls.__module__ == info.name and arguments(cls) == LOSS:
                    yield pytest.param(cls, id=cls.__name__)


LOSSES = list(losses())


def reads(cls):
    return inspect.signature(cls).parameters


def make(cls, layer=1) -> Loss:
    fitting = {"layer": layer, "layers": (0, layer), "attack": LatentAttack(0, 1.0, 2)}
    return cls(**{k: v for k, v in fitting.items() if k in reads(cls)})


def full_batch() -> Batch:
    return with_others(batch())


def views(model):
    """The model moved a little, so that it differs from its reference."""
    original = {n: p.detach().clone() for n, p in model.named_parameters()}
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return ModelForward(model), Frozen(model, original)


def test_the_losses_were_found():
    assert {p.id for p in LOSSES} >= {"Ascent", "NPO", "SimNPO", "RMU", "NLL", "KL", "States"}


@pytest.mark.parametrize("cls", LOSSES)
def test_returns_one_finite_value_per_example(cls, tiny):
    value = make(cls)(*views(tiny), full_batch())
    assert value.shape == (3,)
    assert value.isfinite().all()


@pytest.mark.parametrize("cls", LOSSES)
def test_gives_a_gradient_to_the_model_and_not_to_the_reference(cls, tiny):
    forward, reference = views(tiny)
    make(cls)(forward, reference, full_batch()).mean().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in tiny.parameters())
    assert all(w.grad is None for w in reference.weights.values())


@pytest.mark.parametrize("cls", LOSSES)
def test_ignores_padding(cls, tiny):
    models = views(tiny)
    short = make(cls)(*models, full_batch())
    assert_same_to_rounding(make(cls)(*models, pad_right(full_batch(), 4)), short)


@pytest.mark.parametrize("cls", LOSSES)
def test_an_example_does_not_depend_on_the_others(cls, tiny):
    """So micro-batches change nothing; a mean over the whole batch (defect 8) fails here."""
    models = views(tiny)
    b = shorten(ignore(full_batch(), slice(1, 2), slice(0, 5)), row=0, by=3)
    alone = torch.cat([make(cls)(*models, part) for part in split(b, 1)])
    assert_same_to_rounding(make(cls)(*models, b), alone)


@pytest.mark.parametrize("cls", LOSSES)
def test_is_the_same_where_no_padding_is_read(cls, tiny):
    """With ``--pack``: texts of several lengths in one row."""
    forward, reference = views(tiny)
    b = shorten(shorten(full_batch(), row=0, by=3), row=2, by=1)
    found = []
    for pack in (False, True):
        models = replace(forward, packed=pack), replace(reference, packed=pack)
        with attending_to_each_text(tiny, pack):
            value = make(cls)(*models, b)
            value.sum().backward()
        grads = [p.grad.flatten() for p in tiny.parameters() if p.grad is not None]
        found.append((value.detach(), torch.cat(grads)))
        tiny.zero_grad()
    for packed, padded in zip(found[1], found[0], strict=True):
        assert_same_to_rounding(packed, padded)


READS_LABELS = [p for p in LOSSES if not make(p.values[0]).needs.blocks]


@pytest.mark.parametrize("cls", READS_LABELS)
def test_only_labelled_tokens_count(cls, tiny):
    """Losses on hidden states cover the whole text; all others only what is labelled."""
    models = views(tiny)
    fewer = ignore(full_batch(), slice(None), slice(2, 4))
    assert not torch.allclose(make(cls)(*models, full_batch()), make(cls)(*models, fewer))


@pytest.mark.parametrize("cls", READS_LABELS)
def test_a_batch_without_labels_gives_no_gradient(cls, tiny):
    """-100 used as an index, or a mean over all positions (defects D4, D5), fails here."""
    nothing = ignore(full_batch(), slice(None), slice(None))
    forward, reference = views(tiny)
    value = make(cls)(forward, reference, nothing)
    assert value.isfinite().all()
    value.sum().backward()
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in tiny.parameters())


@pytest.mark.parametrize("cls", LOSSES)
def test_declares_truthfully_whether_it_needs_the_reference(cls, tiny):
    calls = 0

    class Spy:
        def __call__(self, b):
            nonlocal calls
            calls += 1
            return models[1](b)

        def tokens(self, b, *, entropy=False):
            nonlocal calls
            calls += 1
            return models[1].tokens(b, entropy=entropy)

        def hidden(self, b, layer):
            nonlocal calls
            calls += 1
            return models[1].hidden(b, layer)

        def shifted(self, layer, by, batch):
            raise AssertionError("the reference is never shifted")

    models = views(tiny)
    loss = make(cls)
    loss(models[0], Spy(), full_batch())
    assert (calls > 0) == loss.needs.reference


@dataclass
class Passes:
    """The forward passes whose graphs exist: a number for a block, "output" for all blocks."""

    now: list[str] = field(default_factory=list)
    most: list[str] = field(default_factory=list)
    entropy: bool = False

    def begin(self, name):
        self.now.append(name)
        self.most = max(self.most, sorted(self.now), key=len)
        return Ending(lambda: self.now.remove(name))


class Ending:
    """Calls a function when it is no longer referred to."""

    def __init__(self, call):
        self.call = call

    def __del__(self):
        self.call()


class Counted(torch.autograd.Function):
    """The identity, which tells ``passes`` how long its graph exists."""

    @staticmethod
    def forward(ctx, x, passes, name):
        ctx.ending = passes.begin(name)
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        ctx.ending = None
        return grad, None, None


@dataclass(frozen=True)
class Counting:
    """A model that counts its forward passes with a gradient."""

    inner: ModelForward
    passes: Passes

    def __call__(self, b):
        out = self.inner(b)
        return replace(out, states=self.counted(out.states, "output"))

    def tokens(self, b, *, entropy=False):
        self.passes.entropy |= entropy
        return tokens_of(self(b), entropy=entropy)

    def hidden(self, b, layer):
        return self.counted(self.inner.hidden(b, layer), str(layer))

    def shifted(self, layer, by, b):
        return Counting(self.inner.shifted(layer, by, b), self.passes)

    def counted(self, x, name):
        return Counted.apply(x, self.passes, name) if torch.is_grad_enabled() else x


@pytest.mark.parametrize("cls", LOSSES)
def test_declares_truthfully_what_it_reads_of_the_model(cls, tiny):
    """How many texts to the output layer, which blocks, and whether entropies."""
    forward, reference = views(tiny)
    loss, passes = make(cls), Passes()
    loss(Counting(forward, passes), reference, full_batch()).sum().backward()
    blocks = [str(block) for block in loss.needs.blocks]
    assert passes.most == sorted([*blocks, *["output"] * loss.needs.texts])
    assert passes.entropy == loss.needs.entropy


@pytest.mark.parametrize("cls", LOSSES)
def test_declares_truthfully_how_many_logits_it_makes(cls, monkeypatch):
    """Copies of all logits that exist at once; of a chunk at a time where it says so."""
    vocabulary, chunk = 2**14, 16
    models, loss = views(make_tiny(vocabulary)), make(cls)
    b = with_others(batch(examples=4, tokens=61, prompt=1))
    logits = 4 * 60 * vocabulary * 4

    def copies():
        return peak_bytes(lambda: loss(*models, b).sum().backward()) / logits

    if loss.needs.logits:
        assert copies() == pytest.approx(loss.needs.logits, abs=0.75)
    monkeypatch.setattr(lm_head_loss, "KEPT", 0)
    monkeypatch.setattr(lm_head_loss, "CHUNK", chunk)
    monkeypatch.setattr(lm_head_loss, "BLOCK", chunk * 256)
    few = copies() < 0.4 + loss.needs.logits * 0.25
    assert few == (loss.needs.chunked or not loss.needs.logits)


ONE_OF_EACH = list({make(p.values[0]).needs: p for p in LOSSES}.values())


@pytest.mark.parametrize("cls", ONE_OF_EACH)
def test_the_plan_of_a_step_is_what_is_measured(cls):
    """So what is declared is enough for a plan."""
    model, loss = llama(hidden=128, vocabulary=4000), make(cls, layer=3)
    streams = {"x": Stream(texts(16, LENGTH), 4, 0)}
    feeds = {"x": Feed(lambda tokenizer: streams["x"].examples, 4)}
    objective = {"x": Term(loss, on="x")}
    recipe = Recipe(name="x", model="x", data=feeds, objective=objective, optim=OPTIM, metrics={})
    predicted = peak_memory(recipe, shape_of(model, recipe), LENGTH, "cpu").total
    weights = sum(p.nbytes for p in model.parameters())
    found = weights + peak_bytes(lambda: fit(model, objective, streams, OPTIM))
    assert predicted == pytest.approx(found, rel=0.3)


def texts(count, length):
    """Examples with two counterparts each."""
    ids = [[i * k % 500 + 1 for k in range(length)] for i in range(1, count + 3)]
    return [
        Example(ids[i], 0, (Example(ids[i + 1], 0), Example(ids[i + 2], 0))) for i in range(count)
    ]


@pytest.mark.parametrize("cls", LOSSES)
def test_is_final_frozen_and_documented_with_its_paper(cls):
    assert cls.__bases__ == (object,)
    assert cls.__dataclass_params__.frozen
    assert "arXiv" in inspect.getdoc(cls)


NEEDS_OTHERS = ("DPO", "Refusal", "JensUn", "ELM", "RepNoise", "Generic", "LUNAR")


@pytest.mark.parametrize("cls", [p for p in LOSSES if p.id in NEEDS_OTHERS])
def test_a_loss_that_compares_says_what_it_lacks(cls, tiny):
    with pytest.raises(ValueError, match="compares each example with a"):
        make(cls)(*views(tiny), batch())
