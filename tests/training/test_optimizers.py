"""Optimisers: their arithmetic, masks to the bit, exact resume, and what they refuse."""

import importlib.util

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ilu.data.stream import Stream
from ilu.methods.forget.npo import NPO
from ilu.methods.retain.likelihood import NLL
from ilu.methods.robust.sam import SAM
from ilu.models.forward import Frozen, ModelForward
from ilu.models.lm_head_loss import tokens_of
from ilu.models.reference_cache import ReferenceCache
from ilu.system import optional
from ilu.system.errors import Stopped
from ilu.system.seeds import seeded
from ilu.training.checkpoint import Checkpoints
from ilu.training.checks import check_sharded
from ilu.training.fit import Optim, check_training, engine_for, fit
from ilu.training.objective import Engine, Term, Views, accumulate
from ilu.training.optim.adamw import adamw8bit
from ilu.training.optim.bfloat16 import stochastic_bfloat16, to_bfloat16
from ilu.training.optim.by_name import optimizer_for
from ilu.training.optim.curvature import curvature
from ilu.training.optim.masked import moving
from ilu.training.optim.mezo import direction, estimate, two_point
from ilu.training.optim.protocol import Optimizer, update
from ilu.training.optim.sophia import Sophia, sampled_targets, sophia_step
from ilu.types import Example, Outputs
from tests.build import batch
from tests.conftest import make_tiny

EIGHT_BIT = pytest.mark.skipif(not importlib.util.find_spec("torchao"), reason="torchao is missing")
KINDS = [
    "adamw",
    "sgd",
    "signsgd",
    "sophia",
    pytest.param("adamw8bit", marks=EIGHT_BIT),
    pytest.param("adamw-bf16", marks=EIGHT_BIT),
]
EXAMPLES = [Example([(i * k) % 31 + 1 for k in range(3, 9)], prompt=1) for i in range(1, 13)]
OBJECTIVE = {"forget": Term(NPO(0.1), on="forget"), "retain": Term(NLL(), on="retain")}


def streams():
    return {n: Stream(EXAMPLES[i:], 3, 0) for i, n in enumerate(("forget", "retain"))}


def small():
    """Its embedding has 4096 entries, so that torchao keeps two of its moments in 8 bits."""
    model = make_tiny(256)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.bfloat16())
    return model


def trained(kind, model=None, **settings):
    model, rows = model or small(), []
    given = {"lr": 1e-3, "steps": 12, "weight_decay": 0.1, "optimizer": kind}
    run = {k: settings.pop(k) for k in ("mask", "checkpoints", "stop") if k in settings}
    fit(model, OBJECTIVE, streams(), Optim(**given | settings), log=rows.append, **run)
    return model, rows


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_every_optimiser_has_the_protocol_and_lowers_the_loss(kind):
    assert isinstance(optimizer_for(kind, dict(make_tiny().named_parameters()), None), Optimizer)
    rows = []
    stream = {"task": Stream(EXAMPLES[:3], 3, 0)}
    optim = Optim(lr=1e-2, steps=40, optimizer=kind)
    fit(small(), {"task": Term(NLL(), on="task")}, stream, optim, log=rows.append)
    assert rows[-1]["task"] < 0.6 * rows[0]["task"]


@pytest.mark.parametrize("kind", KINDS)
def test_masked_weights_are_bit_identical_even_with_weight_decay(kind):
    start = small()
    torch.manual_seed(0)
    mask = {n: torch.rand_like(p) < 0.3 for n, p in start.named_parameters()}
    model, _ = trained(kind, mask=mask)
    for (n, p), before in zip(model.named_parameters(), start.parameters(), strict=True):
        assert torch.equal(p[~mask[n]].float(), before[~mask[n]])
    assert sum((p != b).sum() for p, b in zip(model.parameters(), start.parameters(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_named_parameters_move(kind):
    start = small()
    model, _ = trained(kind, steps=2, parameters=r"1\.mlp\.down_proj")
    pairs = zip(model.named_parameters(), start.parameters(), strict=True)
    changed = {n for (n, p), b in pairs if not torch.equal(p, b.to(p.dtype))}
    assert changed == {"model.layers.1.mlp.down_proj.weight"}


@pytest.mark.parametrize("at", [1, 10, 11])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_and_resumed_run_is_equal_to_the_bit(kind, at, tmp_path):
    whole, rows = trained(kind)
    points, seen = Checkpoints(tmp_path / "c"), []

    def stop():
        seen.append(0)
        return len(seen) == at

    with pytest.raises(Stopped):
        trained(kind, checkpoints=points, stop=stop)
    torch.rand(5)  # whatever else draws from the global generator
    model, rest = trained(kind, checkpoints=points)
    assert same(whole, model)
    assert rest == rows[at:]


@pytest.mark.parametrize("kind", KINDS)
def test_the_saved_state_matters(kind, tmp_path):
    """So the test above can fail: an optimiser that begins anew ends elsewhere."""
    points = Checkpoints(tmp_path / "c", every=6)
    trained(kind, checkpoints=points, steps=6)
    file = points.latest() / "optimizer.safetensors"
    save_file({}, file)
    assert not same(trained(kind)[0], trained(kind, checkpoints=points)[0])


@pytest.mark.parametrize("betas", [None, (0.0, 0.0)])
def test_sign_descent_moves_every_weight_by_the_rate_and_is_adam_of_one_bit(betas):
    """A second way: the sign of torch's own Adam step, from the same gradients."""
    p, q = (nn.Parameter(torch.linspace(-1, 1, 6)) for _ in range(2))
    ours = optimizer_for("signsgd", {"p": p}, betas)
    adam = torch.optim.Adam([q], lr=1.0, betas=(betas[0] if betas else 0.9, 0.999))
    generator = torch.Generator().manual_seed(0)
    for step in range(5):
        g = torch.randn(6, generator=generator)
        before = p.detach().clone(), q.detach().clone()
        p.grad, q.grad = g.clone(), g.clone()
        ours.step(step, 0.01)
        adam.step()
        torch.testing.assert_close(p - before[0], 0.01 * (q - before[1]).sign())


# Descent without gradients.


def test_the_two_point_estimate_is_the_gradient_on_average(tiny):
    """Of one direction it is <g, u> u to first order: the gradient comes from backward passes."""
    model, stream = make_tiny(), {"x": Stream(EXAMPLES, 6, 0)}
    objective = {"x": Term(NLL(), on="x", weight=2.0)}
    named = dict(model.named_parameters())
    made = engine_for(model, objective, named, Optim(lr=1.0, steps=1), ReferenceCache())
    one, free = stream["x"](0), moving(named, None)
    accumulate(objective, made, lambda on: one, {}, 0)
    g = torch.cat([p.grad.flatten() for p in made.params])
    for step in (0, 1):
        values = estimate(objective, made, free, lambda on: one, {}, step)
        ours = torch.cat([p.grad.flatten() for p in made.params])
        u = torch.cat([x.flatten() for x in direction(free, step).values()])
        torch.testing.assert_close(ours, (g @ u) * u, rtol=0.05, atol=1e-2)
    assert values["x"] == pytest.approx(made.mean(NLL(), one), rel=1e-3)
    draws = torch.randn(20_000, 5, generator=torch.Generator().manual_seed(0))
    slope = torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0])
    each = torch.stack([two_point(2e-3 * (slope @ u).item(), u, mu=1e-3) for u in draws])
    torch.testing.assert_close(each.mean(0), slope, rtol=0, atol=0.1)


def test_mezo_lowers_the_loss_moves_only_what_may_move_and_resumes(tmp_path):
    start = small()
    mask = {n: torch.rand_like(p) < 0.3 for n, p in start.named_parameters()}
    settings = {"mask": mask, "lr": 0.2, "weight_decay": 0.0}
    model, rows = trained("mezo", **settings)
    for (n, p), before in zip(model.named_parameters(), start.parameters(), strict=True):
        assert torch.equal(p[~mask[n]], before[~mask[n]])
        assert not torch.equal(p, before)
    points, seen = Checkpoints(tmp_path / "c"), []

    def stop():
        seen.append(0)
        return len(seen) == 5

    with pytest.raises(Stopped):
        trained("mezo", checkpoints=points, stop=stop, **settings)
    again, rest = trained("mezo", checkpoints=points, **settings)
    assert same(model, again)
    assert rest == rows[5:]
    rows = []
    stream, optim = {"x": Stream(EXAMPLES[:3], 3, 0)}, Optim(lr=0.1, steps=300, optimizer="mezo")
    fit(make_tiny(), {"x": Term(NLL(), on="x")}, stream, optim, log=rows.append)
    assert rows[-1]["x"] < 0.95 * rows[0]["x"]


def test_mezo_refuses_rules_that_need_gradients(tiny):
    objective = {"forget": Term(NLL(), on="x", rule=SAM(0.1))}
    with pytest.raises(ValueError, match="mezo takes no gradients"):
        check_training(tiny, objective, Optim(lr=1.0, steps=1, optimizer="mezo"), None)
    with pytest.raises(ValueError, match="leave out `shard`"):
        check_sharded("mezo")


# The Gauss-Newton-Bartlett estimate.


class Table:
    """Softmax regression: logits are a fixed vector per token times a trained matrix."""

    def __init__(self, vocabulary=5, width=3):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(32, width, generator=generator, dtype=torch.float64)
        w = torch.randn(width, vocabulary, generator=generator, dtype=torch.float64)
        self.w = nn.Parameter(w)

    def __call__(self, b):
        targets = b.labels[:, 1:]
        return Outputs(
            self.x[b.input_ids[:, :-1]] @ self.w, (targets % 5).where(targets >= 0, -100)
        )

    def tokens(self, b, *, entropy=False):
        return tokens_of(self(b), entropy=entropy)

    def hidden(self, b, layer):
        raise AssertionError("only predictions are looked at")

    def shifted(self, layer, by, batch):
        raise AssertionError("only predictions are looked at")


def estimates(b, draws, micro_batch=None):
    model = Table()
    views = Views(model, model)
    engine = Engine(views, views, [model.w], micro_batch)
    objective = {"a": Term(NLL(), on="x"), "b": Term(NLL(), on="x")}  # one stream, one batch
    return model, [curvature(objective, engine, lambda on: b, k)[0] for k in range(draws)]


def test_the_estimate_is_the_gauss_newton_diagonal_on_average():
    """Against autograd's Hessian, which in softmax regression is the Gauss-Newton matrix."""
    b = batch(examples=4, tokens=6, pad=1)
    model, drawn = estimates(b, 3000)
    used = b.labels[:, 1:] >= 0
    x, y = model.x[b.input_ids[:, :-1]][used], (b.labels[:, 1:] % 5)[used]
    assert len(x) == 4 * 3  # eight tokens less prompt, padding: not the size of the batch
    loss = lambda w: nn.functional.cross_entropy(x @ w, y)  # noqa: E731
    exact = torch.autograd.functional.hessian(loss, model.w.detach()).reshape(15, 15).diagonal()
    p = (x @ model.w.detach()).softmax(-1)
    by_hand = (x.square().T @ (p * (1 - p)) / len(x)).flatten()
    torch.testing.assert_close(exact, by_hand)
    found = torch.stack(drawn).flatten(1)
    off = (found.mean(0) - exact) / (found.std(0) / len(found) ** 0.5)
    assert off.abs().max() < 4  # standard errors
    assert found.mean(0).sum() == pytest.approx(exact.sum().item(), rel=0.03)


def test_micro_batches_do_not_change_the_estimate():
    b = batch(examples=5, tokens=6)
    (_, [whole]), (_, [parts]) = (estimates(b, 1, size) for size in (None, 2))
    torch.testing.assert_close(whole, parts)


def test_the_estimate_leaves_gradients_alone_and_depends_on_the_step_only(tiny):
    b = batch()
    views = Views(ModelForward(tiny), Frozen(tiny, None))
    engine = Engine(views, views, [*tiny.parameters()])
    for p in engine.params:
        p.grad = torch.ones_like(p)
    objective = {"a": Term(NLL(), on="x")}
    first = curvature(objective, engine, lambda on: b, 3)
    torch.rand(7)
    again, other = (curvature(objective, engine, lambda on: b, k) for k in (3, 4))
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    assert not all(torch.equal(x, y) for x, y in zip(first, other, strict=True))
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in engine.params)


def test_labels_are_drawn_with_the_predicted_probabilities():
    p = torch.tensor([0.0, 0.5, 0.2, 0.3])
    uniform = torch.linspace(0, 1, 10_001)[:-1][None]
    drawn = sampled_targets(p.log().expand(1, 10_000, 4), uniform)
    assert not (drawn == 0).any()  # not even for the number 0
    assert torch.bincount(drawn.flatten(), minlength=4).tolist() == pytest.approx(
        [0, 5000, 2000, 3000], abs=1
    )


# Sophia.


def run_by_hand(make, grads, curvatures=None, rate=0.1):
    """Drive an optimiser without a model; returns it and its weight."""
    p = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    optimizer, asked = make({"p": p}), []

    def look(step):
        asked.append(step)
        return (torch.tensor(curvatures[len(asked) - 1]),)

    for step, grad in enumerate(grads):
        optimizer.refresh(step, lambda s=step: look(s))
        p.grad = torch.tensor(grad)
        optimizer.step(step, rate)
    return optimizer, p.detach(), asked


def test_sophia_by_hand_and_refreshed_every_k_steps():
    grads = [[0.1 * (k + 1), -0.2, 0.0] for k in range(5)]
    curvatures = [[50.0, 1.0, 0.0], [8.0, 300.0, 2.0], [1.0, 1.0, 1.0]]
    make = lambda named: Sophia(named, betas=(0.9, 0.8), gamma=0.5, every=2)  # noqa: E731
    optimizer, found, asked = run_by_hand(make, grads, curvatures)
    assert asked == [0, 2, 4]
    expected = []
    for i, start in enumerate((1.0, -2.0, 0.5)):
        x, m, h = start, 0.0, 0.0
        for step, grad in enumerate(grads):
            if step % 2 == 0:
                h = 0.8 * h + 0.2 * curvatures[step // 2][i]
            m = 0.9 * m + 0.1 * grad[i]
            x -= 0.1 * max(-1.0, min(1.0, m / max(0.5 * h, 1e-12)))
        expected.append(x)
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
    assert (optimizer.h["p"] > 0).all()
    assert abs(found[0].item() - 1.0) < 0.4  # not five steps by the sign


def test_a_run_with_sophia_has_a_hessian_and_refreshes_it(tmp_path):
    """Copies of Sophia in this field never do: theirs stays 0, and every step is sign descent."""
    held = {}
    for steps in (1, 9, 11):
        points = Checkpoints(tmp_path / str(steps), every=steps)
        trained("sophia", checkpoints=points, steps=steps, schedule="constant")
        saved = load_file(points.latest() / "optimizer.safetensors")
        held[steps] = {n: x for n, x in saved.items() if n.startswith("h/")}
    assert len(held[1]) == len(list(make_tiny().parameters()))
    assert all(x.sum() > 0 for x in held[1].values())
    assert all(torch.equal(x, held[9][n]) for n, x in held[1].items())
    assert not any(torch.equal(x, held[11][n]) for n, x in held[1].items())


def test_limits_of_the_steps():
    m = torch.tensor([0.3, -0.3, 0.0])
    zero = torch.zeros(3)
    assert sophia_step(m, zero, gamma=0.01, eps=1e-12).tolist() == [1, -1, 0]
    newton = sophia_step(m, torch.full((3,), 1e4), gamma=0.01, eps=1e-12)
    torch.testing.assert_close(newton, m / 100)


# bfloat16 and 8 bits.


def test_rounding_is_right_on_average_and_keeps_what_fits():
    generator = torch.Generator().manual_seed(0)
    x = torch.tensor([1.001, -3.0001, 0.25, -0.0, 1e-30]).expand(20_000, 5).contiguous()
    mean = stochastic_bfloat16(x, generator).double().mean(0)
    assert mean.tolist() == pytest.approx(x[0].tolist(), rel=3e-5)
    assert torch.tensor(1.001).bfloat16().item() != 1.001
    kept = torch.randn(1000, generator=generator).bfloat16()
    assert torch.equal(stochastic_bfloat16(kept.float(), generator), kept)


@EIGHT_BIT
@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_bfloat16_weights_follow_steps_below_their_spacing(decay):
    """Ten steps of 1e-4 from 1, where the spacing is 4e-3: nearest rounding would lose all."""
    p = nn.Parameter(torch.ones(128, 128, dtype=torch.bfloat16))
    optimizer = adamw8bit({"p": p}, None)
    for step in range(10):
        p.grad = torch.full_like(p, 0.0 if decay else 0.1)
        update({"p": p}, optimizer, step=step, rate=1e-4, decay=decay, clip=1e9)
    assert p.dtype == torch.bfloat16
    assert (1 - p.double().mean()).item() == pytest.approx(1e-3, rel=0.1)


@EIGHT_BIT
def test_stochastic_rounding_depends_on_the_step_and_not_on_what_was_drawn_before():
    found = []
    for step in (4, 4, 5):
        torch.rand(3)
        p = nn.Parameter(torch.ones(64, 64, dtype=torch.bfloat16))
        p.grad = torch.ones_like(p)
        adamw8bit({"p": p}, None).step(step, 1e-3)
        found.append(p.detach())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_bfloat16_is_for_the_weights_and_not_for_the_buffers(tiny):
    before = {n: b.clone() for n, b in tiny.named_buffers()}
    to_bfloat16(tiny)
    assert {p.dtype for p in tiny.parameters()} == {torch.bfloat16}
    assert all(torch.equal(b, before[n]) for n, b in tiny.named_buffers())
    assert before


@EIGHT_BIT
def test_moments_are_in_8_bits_and_close_to_adamw():
    from torchao.optim.subclass_8bit import OptimState8bit

    named = dict(small().named_parameters())
    optimizer = adamw8bit(named, None)
    for p in named.values():
        p.grad = torch.ones_like(p)
    optimizer.step(0, 1e-3)
    kinds = {n: type(optimizer.inner.state[p]["exp_avg"]) for n, p in named.items()}
    assert {n for n, k in kinds.items() if k is OptimState8bit} == {
        "model.embed_tokens.weight",
        "lm_head.weight",
    }
    start, exact, ours = small(), trained("adamw")[0], trained("adamw8bit")[0]
    a, b = (
        torch.cat(
            [(p - s).flatten() for p, s in zip(m.parameters(), start.parameters(), strict=True)]
        )
        for m in (exact, ours)
    )
    assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.98
    assert not torch.equal(a, b)


@pytest.mark.parametrize("betas", [None, (0.5, 0.0)])
def test_descent_has_momentum_and_no_scale_of_its_own(betas):
    p, momentum = nn.Parameter(torch.zeros(2)), betas[0] if betas else 0.9
    optimizer = optimizer_for("sgd", {"p": p}, betas)
    first, second = torch.tensor([1.0, 100.0]), torch.tensor([3.0, 50.0])
    for step, (g, rate) in enumerate([(first, 0.1), (second, 0.2)]):
        p.grad = g
        optimizer.step(step, rate)
    assert torch.allclose(p, -0.1 * first - 0.2 * (momentum * first + second))


def test_float32_weights_stay_float32():
    assert {p.dtype for p in trained("adamw", steps=1)[0].parameters()} == {torch.float32}


@EIGHT_BIT
def test_bfloat16_refuses_what_it_would_round_away():
    ruled = {"forget": Term(NLL(), on="forget", rule=SAM(0.1))}
    optim = Optim(lr=1e-3, steps=1, optimizer="adamw-bf16")
    with pytest.raises(ValueError, match=r"adamw-bf16 cannot train term 'forget'.*Use adamw"):
        fit(small(), ruled, streams(), optim)
    mask = {n: torch.ones_like(p, dtype=torch.bool) for n, p in make_tiny(256).named_parameters()}
    with pytest.raises(ValueError, match="cannot keep masked weights"):
        trained("adamw-bf16", model=make_tiny(256), mask=mask)


def test_a_missing_library_is_one_line_that_says_what_to_install(monkeypatch, tiny):
    monkeypatch.setattr(optional, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"adamw8bit needs torchao.*pip install 'torchao>=[\d.]+'$"
    ):
        trained("adamw8bit", model=tiny)


@pytest.mark.parametrize("betas", [(1.0, 0.9), (0.9, -0.1)])
def test_impossible_betas_are_refused(betas):
    with pytest.raises(ValueError, match="below 1"):
        Optim(lr=1e-3, steps=1, betas=betas)


def test_seeded_gives_the_global_generator_back():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with seeded(5, torch.device("cpu")):
        inside = torch.rand(3)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(inside, torch.rand(3, generator=torch.Generator().manual_seed(5)))
