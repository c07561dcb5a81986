"""Gradient rules: they see whole batches and leave the weights as they were, to the bit."""

import pytest
import torch

from ilu.data import split
from ilu.forward import Frozen, ModelForward
from ilu.objective import Engine, Term, accumulate
from ilu.retain.likelihood import NLL
from ilu.robust.invariance import (
    Penalty,
    ScaleGradient,
    Square,
    elementwise,
    gradient,
    parameters,
    scale_gradient,
    tensors,
)
from ilu.robust.rules import SAM, move, plain, restored
from tests.build import batch

PENALTIES = [Penalty(r) for r in (gradient, parameters, tensors, elementwise)]
RULES = [plain, SAM(rho=0.05), Square(), *PENALTIES]


def name(rule):
    reading = getattr(rule, "reading", None)
    return reading.__name__ if reading else getattr(rule, "__name__", type(rule).__name__)


def engine(model, micro_batch=None):
    forward = ModelForward(model)
    return Engine(forward, forward, Frozen(model, None), list(model.parameters()), micro_batch)


def gradient_of(model, term, micro_batch=None, b=None):
    one = batch(examples=6) if b is None else b
    made = engine(model, micro_batch)
    values = accumulate({"term": term}, made, lambda on: one)
    grads = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in made.params]
    model.zero_grad()
    return values["term"], grads


@pytest.mark.parametrize("rule", RULES, ids=name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rules_leave_weights_bit_identical(rule, dtype, tiny):
    tiny.to(dtype)
    before = [p.detach().clone() for p in tiny.parameters()]
    gradient_of(tiny, Term(NLL(), on="x", rule=rule))
    assert all(torch.equal(a, b) for a, b in zip(before, tiny.parameters(), strict=True))


@pytest.mark.parametrize("rule", RULES, ids=name)
def test_micro_batches_change_nothing(rule, tiny):
    """Squaring each micro-batch on its own would: its variance comes on top (methods.md 8.2)."""
    loss = ScaleGradient() if isinstance(rule, Square) else NLL()
    tiny.double()
    whole = gradient_of(tiny, Term(loss, on="x", rule=rule))
    parts = gradient_of(tiny, Term(loss, on="x", rule=rule), micro_batch=2)
    assert whole[0] == pytest.approx(parts[0], rel=1e-9)
    for a, b in zip(whole[1], parts[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_the_mean_of_squares_is_another_number(tiny):
    """So the test above can fail."""
    b = batch(examples=6)
    squares = [
        ScaleGradient()(ModelForward(tiny), Frozen(tiny, None), p).mean() ** 2 for p in split(b, 2)
    ]
    whole, _ = gradient_of(tiny, Term(ScaleGradient(), on="x", rule=Square()), b=b)
    assert whole < 0.999 * torch.stack(squares).mean().item()


def test_logits_reading_is_the_square_of_scale_gradient(tiny):
    b = batch(examples=4)
    value, _ = gradient_of(tiny, Term(ScaleGradient(), on="x", rule=Square()), b=b)
    out = ModelForward(tiny)(b)
    assert value == pytest.approx(scale_gradient(out.logits, out.targets).item() ** 2, rel=1e-4)


@pytest.mark.parametrize("rule", PENALTIES, ids=name)
def test_a_penalty_pulls_at_the_weights(rule, tiny):
    """The released gradient and curvature penalties have zero gradient: ours must not."""
    value, grads = gradient_of(tiny, Term(NLL(), on="x", rule=rule))
    assert value > 0
    assert sum(g.norm() for g in grads) > 0


@pytest.mark.parametrize("rule", PENALTIES, ids=name)
def test_penalties_on_a_transformer_match_double_backward(rule, tiny):
    """In float32 and with the default radius, which is what runs use."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from tests.test_math import exact

    params = list(tiny.parameters())
    with sdpa_kernel(SDPBackend.MATH):
        loss = NLL()(ModelForward(tiny), Frozen(tiny, None), batch(examples=6)).mean()
        expected = torch.autograd.grad(exact(rule.reading, params, loss), params)
    _, ours = gradient_of(tiny, Term(NLL(), on="x", rule=rule))
    a, b = (torch.cat([g.flatten() for g in grads]) for grads in (ours, expected))
    assert ((a - b).norm() / b.norm()).item() < 0.02
    assert torch.nn.functional.cosine_similarity(a, b, dim=0).item() > 0.999


def test_sam_with_zero_radius_is_plain(tiny):
    (_, sam), (_, here) = (
        gradient_of(tiny, Term(NLL(), on="x", rule=r)) for r in (SAM(0.0), plain)
    )
    assert all(torch.equal(a, b) for a, b in zip(sam, here, strict=True))


def test_sam_is_the_gradient_at_the_worst_point(tiny):
    params = list(tiny.parameters())
    _, here = gradient_of(tiny, Term(NLL(), on="x"))
    _, sam = gradient_of(tiny, Term(NLL(), on="x", rule=SAM(0.1)))
    length = torch.cat([g.flatten() for g in here]).norm()
    with restored(params):
        move(params, tuple(here), 0.1 / length)
        _, there = gradient_of(tiny, Term(NLL(), on="x"))
    for a, b in zip(sam, there, strict=True):
        torch.testing.assert_close(a, b)


def test_restored_even_after_an_error(tiny):
    params = list(tiny.parameters())
    before = [p.detach().clone() for p in params]
    with pytest.raises(RuntimeError), restored(params):
        move(params, tuple(torch.ones_like(p) for p in params), 1.0)
        raise RuntimeError
    assert all(torch.equal(a, b) for a, b in zip(before, params, strict=True))


def test_the_objective_is_the_weighted_sum_whatever_the_rules(tiny):
    terms = {
        "a": Term(NLL(), on="x", weight=2.0),
        "b": Term(NLL(), on="x", weight=0.5, rule=SAM(0.1)),
        "c": Term(NLL(), on="x", weight=3.0, rule=Penalty(gradient)),
    }
    one = batch(examples=6)
    made = engine(tiny)
    accumulate(terms, made, lambda on: one)
    total = [p.grad.clone() for p in made.params]
    tiny.zero_grad()
    alone = [
        [t.weight * g for g in gradient_of(tiny, Term(t.loss, "x", rule=t.rule))[1]]
        for t in terms.values()
    ]
    for ours, parts in zip(total, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(ours, sum(parts))
