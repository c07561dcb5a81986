"""Gradient rules: they see whole batches and leave the weights as they were, to the bit."""

import pytest
import torch

from ilu.data.stream import split
from ilu.methods.forget.ascent import Ascent
from ilu.methods.retain.likelihood import NLL
from ilu.methods.robust.adversary import TAR, DisruptionMasking
from ilu.methods.robust.flatness import CurvaturePenalty, GradientPenalty
from ilu.methods.robust.gru import GRU, rectified
from ilu.methods.robust.ilu import (
    Layerwise,
    Penalty,
    ScaleGradient,
    Square,
    elementwise,
    exact_penalty,
    gradient,
    parameters,
    scale_gradient,
    tensors,
)
from ilu.methods.robust.l1 import L1
from ilu.methods.robust.lookahead import LookAhead, first_adam_step
from ilu.methods.robust.perturb import move, norm, restored
from ilu.methods.robust.repselect import (
    Components,
    RepSelect,
    descended,
    new_adapter,
    soft_collapse,
    top_components,
)
from ilu.methods.robust.sam import SAM
from ilu.methods.robust.smoothing import RandomSmoothing
from ilu.models.forward import Frozen, ModelForward
from ilu.recipes.build import build
from ilu.training.objective import Engine, Plain, Term, Views, accumulate
from ilu.types import Slope
from tests.build import batch
from tests.close import assert_same_to_rounding

PENALTIES = [Penalty(r) for r in (gradient, parameters, tensors, elementwise)]
LAYERWISE = [Penalty(Layerwise(r)) for r in (gradient, parameters, tensors, elementwise)]
RELEARNT = [Penalty(r, adversaries=("x",)) for r in (parameters, tensors, elementwise)]
FLAT = [GradientPenalty(0.1), CurvaturePenalty(0.1, mu=0.1)]
TAMPERED = [TAR(4, 2, 1e-3), DisruptionMasking(2, 1e-3)]
RULES = [Plain(), SAM(rho=0.05), RandomSmoothing(1e-3, 2), L1(1e-3), Square(), *PENALTIES]
RULES = [*RULES, *LAYERWISE, *RELEARNT, *FLAT, *TAMPERED, LookAhead(1e-3), GRU(), RepSelect(3, 2)]


def name(rule):
    if isinstance(rule, Layerwise):
        return f"{name(rule.reading)} layerwise"
    if isinstance(rule, Penalty):
        return f"{name(rule.reading)}{' of f' if rule.adversaries else ''}"
    return getattr(rule, "__name__", type(rule).__name__)


def engine(model, micro_batch=None):
    forward = ModelForward(model)
    views = Views(forward, Frozen(model, None))
    return Engine(views, views, list(model.parameters()), micro_batch)


def gradient_of(model, term, micro_batch=None, b=None):
    one = batch(examples=6) if b is None else b
    made = engine(model, micro_batch)
    values = accumulate({"term": term}, made, lambda on: one, {}, 0)
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
    # Adam's first steps divide by the gradient's own size, which magnifies rounding.
    precision = 1e-4 if rule in TAMPERED else 1e-6
    for a, b in zip(whole[1], parts[1], strict=True):
        torch.testing.assert_close(a, b, rtol=precision, atol=1e-3 * precision)


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
    expected = scale_gradient(ModelForward(tiny).tokens(b, entropy=True)).item() ** 2
    assert value == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("rule", [*PENALTIES, *LAYERWISE, *RELEARNT, *FLAT], ids=name)
def test_a_penalty_pulls_at_the_weights(rule, tiny):
    """The released gradient and curvature penalties have zero gradient: ours must not."""
    value, grads = gradient_of(tiny, Term(NLL(), on="x", rule=rule))
    _, own = gradient_of(tiny, Term(NLL(), on="x"))
    assert value > 0
    assert sum(g.norm() for g in grads) > 0
    assert sum((g - b).norm() for g, b in zip(grads, own, strict=True)) > 1e-4


@pytest.mark.parametrize("rule", PENALTIES, ids=name)
def test_penalties_on_a_transformer_match_double_backward(rule, tiny):
    """In float32 and with the default radius, which is what runs use."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from tests.methods.test_math import exact

    params = list(tiny.parameters())
    with sdpa_kernel(SDPBackend.MATH):
        loss = nll(tiny)
        expected = torch.autograd.grad(exact(rule.reading, params, loss), params)
    _, ours = gradient_of(tiny, Term(NLL(), on="x", rule=rule))
    a, b = (torch.cat([g.flatten() for g in grads]) for grads in (ours, expected))
    assert ((a - b).norm() / b.norm()).item() < 0.02
    assert torch.nn.functional.cosine_similarity(a, b, dim=0).item() > 0.999


def test_sam_with_zero_radius_is_plain(tiny):
    (_, sam), (_, here) = (
        gradient_of(tiny, Term(NLL(), on="x", rule=r)) for r in (SAM(0.0), Plain())
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
        assert_same_to_rounding(a, b)


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
    accumulate(terms, made, lambda on: one, {}, 0)
    total = [p.grad.clone() for p in made.params]
    tiny.zero_grad()
    alone = [
        [t.weight * g for g in gradient_of(tiny, Term(t.loss, "x", rule=t.rule))[1]]
        for t in terms.values()
    ]
    for ours, parts in zip(total, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(ours, sum(parts))


def flat_vector(grads):
    return torch.cat([g.flatten() for g in grads])


def nll(model):
    forward = ModelForward(model, all_logits=True)
    return NLL()(forward, Frozen(model, None), batch(examples=6)).mean()


@pytest.fixture
def mathematical():
    """Attention that can be differentiated twice."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        yield


@pytest.mark.parametrize("rule", PENALTIES, ids=name)
def test_the_exact_penalty_is_the_same_number(rule, tiny, mathematical):
    params = list(tiny.parameters())
    p = exact_penalty(rule.reading, params, nll(tiny))
    exact = torch.autograd.grad(p, params)
    value, grads = gradient_of(tiny, Term(NLL(), on="x", rule=rule))
    assert value == pytest.approx(p.item(), rel=1e-4)
    assert torch.cosine_similarity(flat_vector(grads), flat_vector(exact), dim=0) > 0.999


def test_the_gradient_penalty_matches_double_backward(tiny, mathematical):
    tiny.double()
    params = list(tiny.parameters())
    loss = nll(tiny)
    start = g = torch.autograd.grad(loss, params, create_graph=True)
    whole = loss + 0.3 * flat_vector(g).norm()
    expected = flat_vector(torch.autograd.grad(whole, params))
    value, grads = gradient_of(
        tiny, Term(NLL(), on="x", rule=GradientPenalty(0.3)), b=batch(examples=6)
    )
    assert value == pytest.approx(whole.item(), rel=1e-6)
    own = flat_vector(start)
    off = (flat_vector(grads) - expected).norm() / (expected - own).norm()
    assert off < 0.02  # of the penalty's own part; norms inside the model are float32


def test_the_curvature_penalty_matches_double_backward(tiny, mathematical):
    """grad of mu -> |grad l(theta + mu g/|g|) - grad l(theta)| with the direction held constant."""
    tiny.double()
    params, mu = list(tiny.parameters()), 0.05
    names = [n for n, _ in tiny.named_parameters()]
    start = torch.autograd.grad(nll(tiny), params)
    unit = [g / flat_vector(start).norm() for g in start]

    b = batch(examples=6)

    def gradient_at(shift):
        weights = {n: p + shift * u for n, p, u in zip(names, params, unit, strict=True)}
        loss = NLL()(ModelForward(tiny, weights, all_logits=True), Frozen(tiny, None), b).mean()
        return flat_vector(torch.autograd.grad(loss, params, create_graph=True))

    whole = nll(tiny) + 0.3 * (gradient_at(mu) - gradient_at(0.0)).norm()
    expected = flat_vector(torch.autograd.grad(whole, params))
    value, grads = gradient_of(tiny, Term(NLL(), on="x", rule=CurvaturePenalty(0.3, mu=mu)))
    assert value == pytest.approx(whole.item(), rel=1e-6)
    own = flat_vector(start)
    off = (flat_vector(grads) - expected).norm() / (expected - own).norm()
    assert off < 0.02  # of the penalty's own part; norms inside the model are float32


def test_smoothing_without_noise_is_plain_and_steps_differ(tiny):
    _, here = gradient_of(tiny, Term(NLL(), on="x"))
    _, still = gradient_of(tiny, Term(NLL(), on="x", rule=RandomSmoothing(0.0, 3)))
    assert_same_to_rounding(flat_vector(still), flat_vector(here))
    rule, made = RandomSmoothing(0.05, 1), engine(tiny)
    slopes = [
        rule(made.params, lambda onto=None: made.slope(NLL(), batch()), lambda loss, on: None, step)
        for step in (0, 0, 1)
    ]
    assert slopes[0].value == slopes[1].value != slopes[2].value


def test_l1_adds_the_sign_of_every_weight(tiny):
    _, here = gradient_of(tiny, Term(NLL(), on="x"))
    _, sparse = gradient_of(tiny, Term(NLL(), on="x", rule=L1(0.5)))
    for g, s, p in zip(here, sparse, tiny.parameters(), strict=True):
        assert_same_to_rounding(s - g, 0.5 * p.detach().sign())


def test_tar_without_steps_of_the_adversary_is_the_weighted_gradient_here(tiny):
    """The adversary's lr tends to 0: only the weights of the published schedule are left."""
    _, here = gradient_of(tiny, Term(NLL(), on="x"))
    _, tar = gradient_of(tiny, Term(NLL(), on="x", rule=TAR(64, 4, 1e-12)))
    size = (flat_vector(tar).norm() / flat_vector(here).norm()).item()
    assert size == pytest.approx(4.0 * 4.44, rel=1e-2)  # methods.md, measured: 4.44, times 4


def test_tar_looks_where_the_adversary_has_been(tiny):
    _, here = gradient_of(tiny, Term(NLL(), on="x"))
    _, tar = gradient_of(tiny, Term(NLL(), on="x", rule=TAR(8, 8, 1e-2)))
    assert torch.cosine_similarity(flat_vector(tar), flat_vector(here), dim=0) < 0.99


def test_look_ahead_is_the_gradient_after_adams_first_step(tiny):
    """A second way: torch's own Adam takes the step, then the gradient is taken there."""
    one, params = batch(examples=6), list(tiny.parameters())
    _, ahead = gradient_of(tiny, Term(NLL(), on="x", rule=LookAhead(1e-3)))
    with restored(params):
        adam = torch.optim.Adam(params, lr=1e-3, eps=0.0)
        made = engine(tiny)
        made.backward(NLL(), one, weight=1.0)
        before = [p.detach().clone() for p in params]
        adam.step()
        still = [p.grad == 0 for p in params]
        with torch.no_grad():
            for p, b, zero in zip(params, before, still, strict=True):
                p.copy_(torch.where(zero, b, p))
        tiny.zero_grad()
        _, there = gradient_of(tiny, Term(NLL(), on="x"))
    for a, b in zip(ahead, there, strict=True):
        assert_same_to_rounding(a, b)


def test_a_zero_gradient_moves_nothing():
    g = (torch.tensor([2.0, 0.0, -1e-9]),)
    assert torch.equal(first_adam_step(g)[0], torch.tensor([-1.0, 0.0, 1.0]))


def test_disruption_masking_keeps_signs_and_size(tiny):
    rule = DisruptionMasking(2, 1e-3)
    _, own = gradient_of(tiny, Term(Ascent(), on="x"))
    _, kept = gradient_of(tiny, Term(NLL(), on="x"))
    _, masked = gradient_of(tiny, Term(Ascent(), on="x", rule=rule))
    # Ascent and the retain loss on one batch point opposite ways, so little is left to keep.
    moving = flat_vector(masked) != 0
    assert (flat_vector(masked)[moving] * flat_vector(kept)[moving] > 0).all()
    assert moving.float().mean() < 0.5
    assert flat_vector(masked).norm() == pytest.approx(flat_vector(own).norm().item(), rel=1e-4)


def test_disruption_masking_knows_signs_whose_product_has_no_number():
    """1e-24 times 1e-24 is 0 in float32."""
    own, kept = torch.tensor([1e-24, -1e-24, 1e-24]), torch.tensor([1e-24, 1e-24, 0.0])
    weights = [torch.nn.Parameter(torch.zeros(3))]
    masked = DisruptionMasking(1, 1e-3)(
        weights, lambda onto=None: Slope(0.0, (own,)), lambda loss, on: Slope(0.0, (kept,)), 0
    )
    assert (masked.grads[0] > 0).tolist() == [True, False, False]


@pytest.mark.parametrize("seed", range(4))
def test_a_rectified_gradient_is_the_closest_that_raises_no_retain_loss(seed):
    """A second way: a solver of min |x - g|^2 with <x, r> >= 0 (GRU, arXiv 2503.09117)."""
    from scipy.optimize import minimize

    g, r = torch.randn(2, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    against = (g @ r).item() < 0
    found = minimize(
        lambda x: ((x - g.numpy()) ** 2).sum(),
        g.numpy() + r.numpy(),
        constraints={"type": "ineq", "fun": lambda x: x @ r.numpy()},
        options={"ftol": 1e-14},
    )
    ours = torch.cat(rectified((g[:2].clone(), g[2:].clone()), (r[:2], r[2:])))
    torch.testing.assert_close(ours, torch.tensor(found.x), rtol=1e-5, atol=1e-6)
    assert torch.equal(ours, g) != against


def test_gru_leaves_the_retain_loss_alone_and_keeps_a_robust_rule_inside(tiny):
    """Ascent and the retain loss on one batch are exactly opposite: nothing is left."""
    _, own = gradient_of(tiny, Term(Ascent(), on="x"))
    _, rest = gradient_of(tiny, Term(Ascent(), on="x", rule=GRU()))
    assert flat_vector(rest).norm() < 1e-5 * flat_vector(own).norm()
    _, agreeing = gradient_of(tiny, Term(NLL(), on="x", rule=GRU(inner=SAM(0.1))))
    _, sam = gradient_of(tiny, Term(NLL(), on="x", rule=SAM(0.1)))
    assert_same_to_rounding(flat_vector(agreeing), flat_vector(sam))


def test_gru_is_an_ending_and_a_method_with_the_same_rule():
    ended, own = (build(name, {"model": "lab"}).objective["forget"] for name in ("npo-gru", "gru"))
    assert ended.rule == own.rule == GRU()
    inside = build("gru-sam", {"model": "lab"}).objective["forget"].rule
    assert isinstance(inside, GRU)
    assert isinstance(inside.inner, SAM)


def test_the_largest_components_become_the_smallest():
    """A second way: the full decomposition with s_min^2 / s for s (RepSelect, 2606.17168)."""
    g = torch.randn(9, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    u, s, vh = torch.linalg.svd(g, full_matrices=False)
    top = Components(u[:, :3], s[:3], vh.T[:, :3])
    reduced = torch.cat([s[2] ** 2 / s[:3], s[3:]])
    expected = u @ reduced.diag() @ vh
    torch.testing.assert_close(soft_collapse(g, top), expected)
    torch.testing.assert_close(soft_collapse(g.T, Components(top.v, top.s, top.u)), expected.T)
    stack = torch.stack([g, 2 * g])
    both = soft_collapse(stack, Components(*(torch.stack([x, x]) for x in top)))
    torch.testing.assert_close(both, torch.stack([expected, 2 * expected]))


def test_components_are_those_of_the_full_decomposition_and_depend_on_the_seed_only():
    g = torch.randn(12, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    g = g @ torch.diag(0.1 ** torch.arange(8, dtype=torch.float64))
    _, s, vh = torch.linalg.svd(g, full_matrices=False)
    top = top_components(g, 3, seed=5)
    torch.testing.assert_close(top.s, s[:3], rtol=1e-3, atol=0)
    torch.testing.assert_close((top.v.T @ vh.T[:, :3]).abs(), torch.eye(3).double(), **NEAR)
    assert torch.equal(top.u, top_components(g, 3, seed=5).u)
    assert len(top_components(g, 50, seed=5).s) == 8
    assert top_components(torch.zeros(4, 4), 2, seed=0).s.gt(0).all()


NEAR = {"rtol": 0, "atol": 1e-2}


def test_adapters_descend_as_autograd_does():
    generator = torch.Generator().manual_seed(0)
    w, x = torch.randn(5, 7, generator=generator), torch.randn(3, 7, generator=generator)
    adapter = new_adapter(w, 2, generator)
    assert adapter.b.eq(0).all()
    assert adapter.a.abs().max() <= 7**-0.5
    adapter = adapter._replace(b=torch.randn(5, 2, generator=generator))
    a, b = (t.clone().requires_grad_() for t in adapter)
    whole = (w + 0.5 * b @ a).requires_grad_()
    loss = (x @ whole.T).square().sum()
    g, by_a, by_b = torch.autograd.grad(loss, (whole, a, b))
    stepped = descended(adapter, g, lr=0.1, scale=0.5)
    torch.testing.assert_close(stepped.a, adapter.a - 0.1 * by_a)
    torch.testing.assert_close(stepped.b, adapter.b - 0.1 * by_b)


def test_repselect_moves_matrices_only_and_its_adversary_matters(tiny):
    def at(rule):
        _, grads = gradient_of(tiny, Term(Ascent(), on="x", rule=rule))
        return grads

    alone, relearned = at(RepSelect(3, 0)), at(RepSelect(3, 4, 0.5))
    for p, g in zip(tiny.parameters(), alone, strict=True):
        assert (g.abs().sum() > 0) == (p.ndim > 1)
    assert torch.cosine_similarity(flat_vector(alone), flat_vector(relearned), dim=0) < 0.999
    inside = build("repselect-sam", {"model": "lab"}).objective["forget"].rule
    assert isinstance(inside, RepSelect)
    assert isinstance(inside.inner, SAM)


def test_a_rule_leaves_collected_gradients_alone(tiny):
    made, one = engine(tiny), batch(examples=6)
    for p in made.params:
        p.grad = torch.ones_like(p)
    TAR(2, 1, 1e-2)(
        made.params,
        lambda onto=None: made.slope(NLL(), one),
        lambda loss, on: made.slope(loss, one),
        0,
    )
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in made.params)


def norms(values):
    return norm([torch.tensor(values)]).item()


def test_norm_is_euclidean():
    assert norms([3.0, 4.0]) == pytest.approx(5.0)
