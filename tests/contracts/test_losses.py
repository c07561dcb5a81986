"""Every loss in the package obeys the Loss contract. A new file is picked up by itself."""

import importlib
import inspect
import pkgutil
from dataclasses import replace

import pytest
import torch

import ilu.methods.forget
import ilu.methods.retain
import ilu.methods.robust
from ilu.data.stream import split
from ilu.methods.forget.lat import LatentAttack
from ilu.models.forward import Frozen, ModelForward
from ilu.models.packing import attending_to_each_text
from ilu.types import Batch, Loss
from tests.build import batch, ignore, pad_right, shorten, with_others
from tests.close import assert_same_to_rounding


def losses():
    for package in (ilu.methods.forget, ilu.methods.retain, ilu.methods.robust):
        for info in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            for _, cls in inspect.getmembers(importlib.import_module(info.name), inspect.isclass):
                if cls.__module__ == info.name and hasattr(cls, "needs_reference"):
                    yield pytest.param(cls, id=cls.__name__)


LOSSES = list(losses())


def reads(cls):
    return inspect.signature(cls).parameters


def make(cls) -> Loss:
    fitting = {"layer": 1, "layers": (0, 1), "attack": LatentAttack(0, 1.0, 2)}
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
        found.append([value.detach(), *(p.grad for p in tiny.parameters() if p.grad is not None)])
        tiny.zero_grad()
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)


READS_LABELS = [p for p in LOSSES if not {"layer", "layers"} & set(reads(p.values[0]))]


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
    assert (calls > 0) == loss.needs_reference


@pytest.mark.parametrize("cls", LOSSES)
def test_is_final_frozen_and_documented_with_its_paper(cls):
    assert cls.__bases__ == (object,)
    assert cls.__dataclass_params__.frozen
    assert "arXiv" in inspect.getdoc(cls)


NEEDS_OTHERS = ("DPO", "Refusal", "JensUn", "ELM", "RepNoise", "Generic")


@pytest.mark.parametrize("cls", [p for p in LOSSES if p.id in NEEDS_OTHERS])
def test_a_loss_that_compares_says_what_it_lacks(cls, tiny):
    with pytest.raises(ValueError, match="compares each example with a"):
        make(cls)(*views(tiny), batch())
