"""Every loss in the package obeys the Loss contract. A new file is picked up by itself."""

import importlib
import inspect
import pkgutil

import pytest
import torch

import ilu.forget
import ilu.retain
import ilu.robust
from ilu.data import split
from ilu.forward import Frozen, ModelForward
from ilu.types import Batch, Loss
from tests.build import batch, pad_right


def losses():
    for package in (ilu.forget, ilu.retain, ilu.robust):
        for info in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            for _, cls in inspect.getmembers(importlib.import_module(info.name), inspect.isclass):
                if cls.__module__ == info.name and hasattr(cls, "needs_reference"):
                    yield pytest.param(cls, id=cls.__name__)


LOSSES = list(losses())


def reads(cls):
    return inspect.signature(cls).parameters


def make(cls) -> Loss:
    return cls(layer=1) if "layer" in reads(cls) else cls()


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
    value = make(cls)(*views(tiny), batch())
    assert value.shape == (3,)
    assert value.isfinite().all()


@pytest.mark.parametrize("cls", LOSSES)
def test_gives_a_gradient_to_the_model_and_not_to_the_reference(cls, tiny):
    forward, reference = views(tiny)
    make(cls)(forward, reference, batch()).mean().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in tiny.parameters())
    assert all(w.grad is None for w in reference.weights.values())


@pytest.mark.parametrize("cls", LOSSES)
def test_ignores_padding(cls, tiny):
    models = views(tiny)
    short = make(cls)(*models, batch())
    torch.testing.assert_close(make(cls)(*models, pad_right(batch(), 4)), short)


@pytest.mark.parametrize("cls", LOSSES)
def test_an_example_does_not_depend_on_the_others(cls, tiny):
    """So micro-batches change nothing; a mean over the whole batch (defect 8) fails here."""
    models = views(tiny)
    b = batch()
    b.labels[0, :5] = -100  # examples of different length
    alone = torch.cat([make(cls)(*models, part) for part in split(b, 1)])
    torch.testing.assert_close(make(cls)(*models, b), alone)


@pytest.mark.parametrize("cls", [p for p in LOSSES if "layer" not in reads(p.values[0])])
def test_only_labelled_tokens_count(cls, tiny):
    """Losses on hidden states cover the whole text; all others only what is labelled."""
    models = views(tiny)
    b = batch()
    fewer = Batch(b.input_ids, b.attention_mask, b.labels.clone())
    fewer.labels[:, 2:4] = -100
    assert not torch.allclose(make(cls)(*models, b), make(cls)(*models, fewer))


@pytest.mark.parametrize("cls", LOSSES)
def test_declares_truthfully_whether_it_needs_the_reference(cls, tiny):
    calls = 0

    class Spy:
        def __call__(self, b):
            nonlocal calls
            calls += 1
            return models[1](b)

        def hidden(self, b, layer):
            nonlocal calls
            calls += 1
            return models[1].hidden(b, layer)

    models = views(tiny)
    make(cls)(models[0], Spy(), batch())
    assert (calls > 0) == cls.needs_reference


@pytest.mark.parametrize("cls", LOSSES)
def test_is_final_frozen_and_documented_with_its_paper(cls):
    assert cls.__bases__ == (object,)
    assert cls.__dataclass_params__.frozen
    assert "arXiv" in inspect.getdoc(cls)
