"""Weights of terms: ramps, multipliers, and weights relative to another term."""

import math
from dataclasses import replace

import pytest
import torch

from ilu.data.stream import Stream
from ilu.methods.forget.npo import NPO
from ilu.methods.retain.likelihood import KL, NLL
from ilu.methods.robust.ilu import Penalty, ScaleGradient, Square
from ilu.methods.robust.sam import SAM
from ilu.models.forward import Frozen, ModelForward
from ilu.training.fit import Optim, fit
from ilu.training.objective import (
    Engine,
    Handover,
    Plain,
    Term,
    Views,
    accumulate,
    is_start,
)
from ilu.training.schedules import Dual, Ramp, Switch
from ilu.types import Example, Slope
from tests.build import OwnRule, batch
from tests.conftest import make_tiny


def step(model, objective, memory, number=0, micro=None):
    """One call of accumulate: values and the gradient."""
    forward = ModelForward(model)
    views = Views(forward, Frozen(model, None))
    engine = Engine(views, views, list(model.parameters()), micro)
    values = accumulate(objective, engine, lambda on: batch(), memory, number)
    grad = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    return values, grad


def test_a_ramp_goes_from_start_to_stop_and_stays():
    ramp = Ramp(1.0, 3.0, 4)
    assert [ramp(k) for k in (0, 1, 4, 9)] == [1.0, 1.5, 3.0, 3.0]
    assert Ramp(0.0, 2.0, 0)(0) == 2.0


def test_a_switch_changes_once():
    assert [Switch(2.0, 0.0, 3)(k) for k in (0, 2, 3, 9)] == [2.0, 2.0, 0.0, 0.0]


def test_a_switch_weighs_the_term(tiny):
    switched = {"a": Term(NLL(), on="x", weight=Switch(0.0, 2.0, 4))}
    _, plain_grad = step(tiny, {"a": Term(NLL(), on="x")}, {})
    assert step(tiny, switched, {}, 3)[1].abs().max() == 0
    torch.testing.assert_close(step(tiny, switched, {}, 4)[1], 2 * plain_grad)


def test_a_ramp_weighs_the_term(tiny):
    ramped = {"a": Term(NLL(), on="x", weight=Ramp(0.0, 2.0, 4))}
    _, plain_grad = step(tiny, {"a": Term(NLL(), on="x")}, {})
    assert step(tiny, ramped, {}, 0)[1].abs().max() == 0
    torch.testing.assert_close(step(tiny, ramped, {}, 2)[1], plain_grad)


def test_a_multiplier_follows_the_violation_and_never_turns_negative(tiny):
    memory: dict[str, float] = {}
    objective = {"a": Term(NLL(), on="x", weight=Dual(start=1.0, rate=2.0, limit=3.0))}
    values, first = step(tiny, objective, memory)
    expected = 1.0 + 2.0 * (values["a"] - 3.0)
    assert memory["a multiplier"] == pytest.approx(expected)
    _, second = step(tiny, objective, memory, 1)
    torch.testing.assert_close(second, expected * first)
    assert Dual(1.0, 2.0, 3.0).after(0.5, 1.0) == 0.0


@pytest.mark.parametrize("rule", [Plain(), Penalty()])
def test_a_relative_weight_is_free_of_scale(rule, tiny):
    """Whatever the size of the term, its weighted first value is that of the other one."""
    objective = {
        "forget": Term(NLL(), on="x"),
        "penalty": Term(NLL(), on="x", weight=0.5, rule=rule, relative_to="forget"),
    }
    memory: dict[str, float] = {}
    values, total = step(tiny, objective, memory)
    _, forget = step(tiny, {"forget": objective["forget"]}, {})
    _, penalty = step(tiny, {"penalty": Term(NLL(), on="x", rule=rule)}, {})
    ratio = 0.5 * values["forget"] / values["penalty"]
    torch.testing.assert_close(total, forget + ratio * penalty)
    # Later steps keep the ratio of the first values, which a checkpoint keeps.
    memory["forget at first"] *= 3
    _, later = step(tiny, objective, memory, 1)
    torch.testing.assert_close(later, forget + 3 * ratio * penalty)


def both_on(stream):
    return {
        "retain": Term(NLL(), on="x", weight=0.7),
        "invariance": Term(
            ScaleGradient(), on=stream, weight=3.0, rule=Square(), relative_to="retain"
        ),
    }


def test_neighbours_on_a_stream_share_a_forward_pass_and_change_nothing(tiny, monkeypatch):
    passes = []
    run = ModelForward._run
    monkeypatch.setattr(ModelForward, "_run", lambda self, b: passes.append(b) or run(self, b))
    tiny.double()
    apart, memory = {}, {}
    values, grad = step(tiny, both_on("y"), apart)
    assert len(passes) == 2
    shared, together = step(tiny, both_on("x"), memory)
    assert len(passes) == 3
    assert shared == pytest.approx(values, rel=1e-9)
    assert (together - grad).norm() < 1e-5 * grad.norm()  # norms inside the model are float32
    assert memory == pytest.approx(apart, rel=1e-9)


def penalised(on):
    """A plain term on ``x``, and the penalty of the same loss."""
    return {
        "retain": Term(NLL(), on="x", weight=0.7),
        "invariance": Term(NLL(), on=on, weight=0.5, rule=Penalty(radius=1e-3)),
    }


@pytest.mark.parametrize("micro", [None, 1])
def test_a_penalty_on_the_retain_batch_starts_from_the_gradient_of_the_retain_term(
    tiny, monkeypatch, micro
):
    """The same values and gradients as on an equal batch of its own, with a pass less."""
    passes = []
    run = ModelForward._run
    monkeypatch.setattr(ModelForward, "_run", lambda self, b: passes.append(b) or run(self, b))
    tiny.double()
    values, grad = step(tiny, penalised("y"), {}, micro=micro)
    apart = len(passes)
    shared, less = step(tiny, penalised("x"), {}, micro=micro)
    assert len(passes) - apart == apart * 2 // 3
    assert shared == pytest.approx(values, rel=1e-9)
    assert (less - grad).norm() < 1e-7 * grad.norm()  # norms inside the model are float32


def test_a_gradient_is_handed_over_once_and_at_the_same_weights():
    p = torch.nn.Parameter(torch.ones(2))
    slope, handover = Slope(1.0, (torch.ones(2),)), Handover()
    assert handover.take([p]) is None
    handover.give(slope, [p])
    assert handover.take([p]) is slope
    assert handover.take([p]) is None
    handover.give(slope, [p])
    with torch.no_grad():
        p.add_(1.0)
    assert handover.take([p]) is None


def test_a_gradient_under_autocast_is_not_handed_over(tiny):
    """The penalty differentiates in full precision."""
    forward = ModelForward(tiny, autocast=True)
    views, exact = Views(forward, Frozen(tiny, None)), Views(ModelForward(tiny), Frozen(tiny, None))
    terms = [{name: term} for name, term in penalised("x").items()]
    assert is_start(*terms, Engine(exact, exact, []))
    assert not is_start(*terms, Engine(views, exact, []))
    assert not is_start({"a": Term(KL(), on="x")}, terms[1], Engine(exact, exact, []))


def test_the_square_is_that_of_the_mean_however_it_is_taken(tiny):
    """In one pass, or through the gradient of the mean."""
    tiny.double()
    term = Term(ScaleGradient(), on="x", weight=2.0, rule=Square())
    values, grad = step(tiny, {"term": term}, {})
    rule = term.rule
    through = replace(term, rule=OwnRule(rule))
    same, expected = step(tiny, {"term": through}, {})
    assert values == pytest.approx(same, rel=1e-9)
    assert (grad - expected).norm() < 1e-5 * grad.norm()


def test_nothing_is_relative_to_a_term_that_is_0(tiny):
    objective = {
        "forget": Term(NLL(), on="x"),
        "invariance": Term(NLL(), on="x", rule=OwnRule(nowhere), relative_to="forget"),
    }
    with pytest.raises(ValueError, match=r"invariance is 0 at the first step.*`scale_free` off"):
        step(tiny, objective, {})


def nowhere(params, here, grad_of, step):
    """A rule whose penalty is 0, as that of an adapter that does nothing yet."""
    return Slope(0.0, here().grads)


@pytest.mark.parametrize("rule", [SAM(rho=0.0), Plain()])
def test_rules_compare_two_views_of_one_precision(rule):
    """At the first step the model is its own reference, so NPO's weight is 1 and KL 0."""
    model, rows = make_tiny(), []
    stream = {"x": Stream([Example([*range(1, 12)], 1)], 1, 0)}
    objective = {"npo": Term(NPO(0.1), on="x", rule=rule), "kl": Term(KL(), on="x", rule=rule)}
    fit(model, objective, stream, Optim(lr=1e-3, steps=1, precision="bfloat16"), log=rows.append)
    assert rows[0]["npo"] == pytest.approx(2 / 0.1 * math.log(2), abs=1e-5)
    assert rows[0]["kl"] == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("rule", [Square(), Plain()])
def test_micro_batches_do_not_change_the_precision(rule):
    """A term that would share a pass is read under autocast also where it is read in parts."""
    found = []
    for micro in (None, 1):
        model, rows = make_tiny(), []
        stream = {"x": Stream([Example([k, *range(1, 12)], 1) for k in (1, 2)], 2, 0)}
        term = Term(ScaleGradient(), on="x", rule=rule, relative_to="forget")
        objective = {"forget": Term(NLL(), on="x"), "penalty": term}
        optim = Optim(lr=1e-3, steps=1, precision="bfloat16", micro_batch=micro)
        fit(model, objective, stream, optim, log=rows.append)
        found.append(rows[0]["penalty"])
    assert found[0] == pytest.approx(found[1], rel=1e-5)
