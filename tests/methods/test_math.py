"""Each formula against a limit, an identity or a second implementation."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ilu.data.stream import collate
from ilu.evals.metrics.likelihood import AnswerNLL
from ilu.evals.metrics.multiple_choice import Choice, option_logps
from ilu.evals.score import mean_score
from ilu.methods.forget.npo import NPO, TokenNPO, npo
from ilu.methods.forget.rmu import RMU, steering_vector
from ilu.methods.forget.simnpo import simnpo
from ilu.methods.retain.likelihood import KL, NLL
from ilu.methods.retain.states import States
from ilu.methods.robust.ilu import (
    Layerwise,
    Penalty,
    Square,
    elementwise,
    gradient,
    parameters,
    scale_gradient,
    tensors,
)
from ilu.models.forward import Frozen, ModelForward
from ilu.models.lm_head_loss import tokens_of
from ilu.models.token_math import mean_nll, sequence_nll, token_entropy, token_kl, token_logp
from ilu.types import LM, Example, Outputs, Question, Slope
from tests.build import batch
from tests.close import ROUNDING, assert_same_to_rounding


def test_token_logp_matches_transformers_loss(tiny):
    b = batch()
    hf = tiny(input_ids=b.input_ids, attention_mask=b.attention_mask, labels=b.labels).loss
    out = ModelForward(tiny)(b)
    torch.testing.assert_close(mean_nll(out.logits, out.targets).mean(), hf)


def test_token_logp_counts_only_answers(tiny):
    out = ModelForward(tiny)(batch(tokens=8, prompt=2, pad=3))
    logp, valid = token_logp(out.logits, out.targets)
    assert valid.sum(-1).tolist() == [3, 3, 3]
    assert (logp[~valid] == 0).all()


def test_sequence_nll_is_the_sum_and_mean_nll_the_mean():
    logits, targets = torch.randn(2, 3, 5), torch.tensor([[1, 2, -100], [4, -100, -100]])
    total, mean = sequence_nll(logits, targets), mean_nll(logits, targets)
    torch.testing.assert_close(total, mean * torch.tensor([2.0, 1.0]))


def test_half_precision_logits_are_summed_in_float32():
    logits = torch.randn(1, 2, 1000).bfloat16()
    assert token_logp(logits, torch.tensor([[3, 4]])).logp.dtype == torch.float32


def test_kl_is_zero_on_itself_and_matches_torch_elsewhere():
    p, q = torch.randn(2, 3, 7), torch.randn(2, 3, 7)
    torch.testing.assert_close(token_kl(p, p), torch.zeros(2, 3))
    each = F.kl_div(q.log_softmax(-1), p.log_softmax(-1), reduction="none", log_target=True).sum(-1)
    torch.testing.assert_close(token_kl(p, q), each)


def test_npo_at_the_reference_is_two_over_beta_log_two():
    nll = torch.tensor([3.0, 40.0])
    torch.testing.assert_close(npo(nll, nll, beta=0.1), torch.full((2,), 20 * math.log(2)))


def test_npo_weight_is_one_at_the_reference_and_vanishes_when_forgotten():
    nll = torch.tensor([3.0, 400.0], requires_grad=True)
    npo(nll, torch.tensor([3.0, 4.0]), beta=0.1).sum().backward()
    torch.testing.assert_close(nll.grad, torch.tensor([-1.0, 0.0]), atol=1e-6, rtol=0)


def test_npo_tends_to_ascent_as_beta_goes_to_zero():
    nll = torch.tensor([3.0, 40.0], requires_grad=True)
    npo(nll, torch.tensor([1.0, 2.0]), beta=1e-5).sum().backward()
    torch.testing.assert_close(nll.grad, -torch.ones(2), atol=1e-3, rtol=0)


@pytest.mark.parametrize("loss", [NPO(0.1), TokenNPO(2.0)])
def test_losses_against_the_reference_start_at_their_known_value(loss, tiny):
    weights = {n: p.detach().clone() for n, p in tiny.named_parameters()}
    value = loss(ModelForward(tiny), Frozen(tiny, weights), batch())
    torch.testing.assert_close(value, torch.full((3,), 2 / loss.beta * math.log(2)))


@pytest.mark.parametrize("loss", [KL(), States(layer=1)])
def test_distances_to_the_reference_start_at_zero(loss, tiny):
    weights = {n: p.detach().clone() for n, p in tiny.named_parameters()}
    value = loss(ModelForward(tiny), Frozen(tiny, weights), batch())
    torch.testing.assert_close(value, torch.zeros(3), atol=1e-6, rtol=0)


@pytest.mark.parametrize("beta", [0.0, -1.0])
def test_npo_refuses_the_limit_and_says_what_to_use(beta):
    with pytest.raises(ValueError, match="use ascent"):
        NPO(beta=beta)


def test_simnpo_margin_is_the_papers_divided_by_beta():
    nll, beta, gamma = torch.tensor([0.5, 2.0]), 2.5, 1.5
    paper = -(2 / beta) * F.logsigmoid(beta * nll - gamma)
    torch.testing.assert_close(simnpo(nll, beta=beta, margin=gamma / beta), paper)


def test_hidden_is_the_output_of_the_block_and_stops_there(tiny):
    b = batch()
    out = tiny(input_ids=b.input_ids, output_hidden_states=True)
    ran: list[int] = []
    hooks = [
        layer.register_forward_hook(lambda *_, i=i: ran.append(i))
        for i, layer in enumerate(tiny.model.layers)
    ]
    torch.testing.assert_close(ModelForward(tiny).hidden(b, 0), out.hidden_states[1])
    assert ran == [0]
    for hook in hooks:
        hook.remove()


def test_hidden_leaves_no_hook_behind(tiny):
    ModelForward(tiny).hidden(batch(), 0)
    assert all(not m._forward_hooks for m in tiny.modules())
    assert ModelForward(tiny)(batch()).logits.shape == (3, 7, 32)


@pytest.mark.parametrize("layer", [-1, 2])
def test_a_layer_out_of_range_names_the_range(layer, tiny):
    with pytest.raises(ValueError, match=r"2 blocks, 0 to 1.*`layer`"):
        RMU(layer=layer)(ModelForward(tiny), Frozen(tiny, None), batch())


def test_rmu_is_zero_on_target_and_its_vector_has_the_asked_length():
    u = 6.5 * steering_vector(16, seed=3)
    assert u.norm().item() == pytest.approx(6.5)
    assert (u >= 0).all()
    assert torch.equal(u, 6.5 * steering_vector(16, seed=3))
    assert not torch.equal(u, 6.5 * steering_vector(16, seed=4))

    class OnTarget:
        def __call__(self, b):
            raise AssertionError("RMU reads no logits")

        def tokens(self, b, *, entropy=False):
            raise AssertionError("RMU reads no logits")

        def hidden(self, b, layer):
            return u.expand(3, 8, 16)

        def shifted(self, layer, by, batch):
            raise AssertionError("RMU shifts nothing")

    assert RMU(1, 6.5, seed=3)(OnTarget(), OnTarget(), batch()).abs().max() < 1e-10


def of(logits, targets):
    return tokens_of(Outputs(logits, targets), entropy=True)


def autograd_scale_gradient(logits, targets):
    """penalty() of the IRM reference code: a dummy scalar and create_graph."""
    w = torch.ones((), dtype=logits.dtype, requires_grad=True)
    nll = F.cross_entropy((logits * w).flatten(0, 1), targets.flatten(), ignore_index=-100)
    return torch.autograd.grad(nll, w, create_graph=True)[0]


def test_scale_gradient_matches_autograd_in_value_and_gradient():
    torch.manual_seed(0)
    logits = torch.randn(3, 5, 11, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 11, (3, 5))
    targets[0, :3], targets[2, 4] = -100, -100
    ours, theirs = scale_gradient(of(logits, targets)), autograd_scale_gradient(logits, targets)
    torch.testing.assert_close(ours, theirs)
    (a,), (b,) = (
        torch.autograd.grad(g.square(), logits, retain_graph=True) for g in (ours, theirs)
    )
    torch.testing.assert_close(a, b)
    assert a[0, :3].abs().max() == 0


def test_scale_gradient_is_zero_for_uniform_and_ignores_a_constant():
    targets = torch.tensor([[1, 2]])
    uniform = of(torch.zeros(1, 2, 9), targets)
    assert scale_gradient(uniform).item() == pytest.approx(0, abs=1e-6)
    z = torch.randn(1, 2, 9)
    torch.testing.assert_close(
        *(scale_gradient(of(x, targets)) for x in (z + 100, z)), atol=1e-4, rtol=1e-4
    )


def test_entropy_of_uniform_is_log_v():
    assert token_entropy(torch.zeros(1, 1, 8)).item() == pytest.approx(math.log(8))


def exact(reading, params, loss):
    """Each reading as the paper writes it, by double backward."""
    g = torch.autograd.grad(loss, params, create_graph=True)
    pairs = list(zip(params, g, strict=True))
    if reading is gradient:
        return sum(x.square().sum() for x in g)
    if reading is parameters:
        return sum((t * x).sum() for t, x in pairs) ** 2
    if reading is tensors:
        return sum((t * x).sum() ** 2 for t, x in pairs)
    return sum((t * x).square().sum() for t, x in pairs)


def test_readings_are_what_w_multiplies():
    """grad_w of loss(w o theta), with w a real variable: one, one per tensor, one per weight."""
    net, x, y = small_net()
    params = list(net.parameters())
    names = [n for n, _ in net.named_parameters()]
    loss = F.cross_entropy(net(x), y)
    for reading, ones in (
        (parameters, [torch.ones((), dtype=torch.float64, requires_grad=True)] * len(params)),
        (tensors, [torch.ones((), dtype=torch.float64, requires_grad=True) for _ in params]),
        (elementwise, [torch.ones_like(p, requires_grad=True) for p in params]),
    ):
        scaled = {n: w * p for n, w, p in zip(names, ones, params, strict=True)}
        scaled_loss = F.cross_entropy(torch.func.functional_call(net, scaled, (x,)), y)
        unique = list(dict.fromkeys(ones))
        direct = sum(g.square().sum() for g in torch.autograd.grad(scaled_loss, unique))
        torch.testing.assert_close(direct, exact(reading, params, F.cross_entropy(net(x), y)))
    assert loss > 0


def small_net():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    return net, torch.randn(16, 4).double(), torch.randint(0, 3, (16,))


def added(slope, onto):
    """The slope, its gradient added in place to what is given."""
    if onto is None:
        return slope
    for sum_, grad in zip(onto, slope.grads, strict=True):
        sum_.add_(grad)
    return Slope(slope.value, onto)


@pytest.mark.parametrize("reading", [gradient, parameters, tensors, elementwise])
def test_penalties_match_double_backward(reading):
    net, x, y = small_net()
    params = list(net.parameters())

    def here(onto=None):
        loss = F.cross_entropy(net(x), y)
        return added(Slope(loss.item(), torch.autograd.grad(loss, params)), onto)

    before = [p.detach().clone() for p in params]
    value, ours = Penalty(reading, radius=1e-7)(params, here, lambda loss, on: here(), 0)
    expected = exact(reading, params, F.cross_entropy(net(x), y))
    assert value == pytest.approx(expected.item())
    for a, b in zip(ours, torch.autograd.grad(expected, params), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    assert all(torch.equal(a, b) for a, b in zip(before, params, strict=True))


def two_nets():
    """A net with what it costs on an environment, and on what is to stay forgotten."""
    net, x, y = small_net()
    params, hidden = list(net.parameters()), torch.randn(16, 4).double()

    def on(stream):
        return F.cross_entropy(net(x if stream == "environment" else hidden), y)

    def slope(stream):
        loss = on(stream)
        return Slope(loss.item(), torch.autograd.grad(loss, params))

    return params, on, slope


@pytest.mark.parametrize("reading", [gradient, parameters, tensors, elementwise])
def test_layerwise_penalties_match_double_backward(reading):
    """exact(reading) of the gradients times constants that make all parts of v equally long."""
    params, on, slope = two_nets()
    g = torch.autograd.grad(on("environment"), params, create_graph=True)
    sizes = torch.stack([x.norm() for x in g]).detach()
    total = sizes.norm()
    b = total / (sizes * sizes.sum()).sqrt()
    weighted = [a * x for a, x in zip(b, g, strict=True)]
    expected = {
        gradient: lambda: sum(x.square().sum() for x in weighted),
        parameters: lambda: sum((t * x).sum() for t, x in zip(params, weighted, strict=True)) ** 2,
        tensors: lambda: sum((t * x).sum() ** 2 for t, x in zip(params, weighted, strict=True)),
        elementwise: lambda: sum(
            (t * x).square().sum() for t, x in zip(params, weighted, strict=True)
        ),
    }[reading]()
    exact_grads = torch.autograd.grad(expected, params)
    penalty = Penalty(Layerwise(reading), radius=1e-7)

    def here(onto=None):
        return added(slope("environment"), onto)

    value, ours = penalty(params, here, lambda loss, on: slope(on), 0)
    assert value == pytest.approx(expected.item())
    if reading is gradient:
        assert value == pytest.approx(total.item() ** 2)
        directions = Layerwise(reading)(tuple(params), slope("environment").grads)
        lengths = [v.norm() for v, _ in directions]
        assert torch.stack(lengths).std() < 1e-6 * lengths[0]
    for a, e in zip(ours, exact_grads, strict=True):
        assert_same_to_rounding(a, e)


@pytest.mark.parametrize("reading", [parameters, tensors, elementwise])
@pytest.mark.parametrize("streams", [("agents",), ("agents", "environment")])
def test_w_can_scale_the_gradient_that_would_learn_again(reading, streams):
    """exact(reading) with the adversaries' gradient, as long as the weights, in their place."""
    params, on, slope = two_nets()
    f = [sum(parts) for parts in zip(*(slope(s).grads for s in streams), strict=True)]
    theta, size = (torch.stack([x.detach().norm() for x in y]).norm() for y in (params, f))
    g = torch.autograd.grad(on("environment"), params, create_graph=True)
    pairs = [(theta / size * d, x) for d, x in zip(f, g, strict=True)]
    expected = {
        parameters: lambda: sum((d * x).sum() for d, x in pairs) ** 2,
        tensors: lambda: sum((d * x).sum() ** 2 for d, x in pairs),
        elementwise: lambda: sum((d * x).square().sum() for d, x in pairs),
    }[reading]()
    exact_grads = torch.autograd.grad(expected, params)
    penalty = Penalty(reading, radius=1e-7, adversaries=streams)

    def likelihood(loss, on):
        assert loss == NLL()
        return slope(on)

    def here(onto=None):
        return added(slope("environment"), onto)

    value, ours = penalty(params, here, likelihood, 0)
    assert value == pytest.approx(expected.item())
    for a, e in zip(ours, exact_grads, strict=True):
        assert_same_to_rounding(a, e)


def test_square_is_the_gradient_of_the_square():
    x = nn.Parameter(torch.tensor([2.0, -1.0]))

    def here():
        value = (x**3).sum()
        return Slope(value.item(), torch.autograd.grad(value, [x]))

    value, (grad,) = Square()([x], here, lambda loss, on: here(), 0)
    assert value == pytest.approx(49.0)
    torch.testing.assert_close(grad, torch.autograd.grad((x**3).sum() ** 2, [x])[0])


class Words:
    """A tokenizer whose words are numbers."""

    eos_token_id = None
    chat_template = None

    def __call__(self, texts, add_special_tokens=True):
        one = isinstance(texts, str)
        ids = [[int(w) for w in t.split()] for t in ([texts] if one else texts)]
        return type("Encoding", (), {"input_ids": ids[0] if one else ids})


def test_option_likelihoods_equal_those_of_whole_sequences(tiny):
    lm = LM(tiny, Words())
    asked = [
        Question("1 2 3", (" 4", " 5", " 6 7", " 6 8"), 0),
        Question("9 8 7 6 5 4", (" 3", " 2 1"), 1),
    ]
    ours = option_logps(lm, asked, batch_size=2)
    for q, row in zip(asked, ours, strict=True):
        for option, value in zip(q.options, row, strict=True):
            ids = Words()(q.prompt + option).input_ids
            out = ModelForward(tiny)(collate([Example(ids, len(q.prompt.split()))]))
            assert value == pytest.approx(
                -sequence_nll(out.logits, out.targets).item(), rel=ROUNDING
            )


def test_choice_counts_right_answers(tiny):
    lm = LM(tiny, Words())
    question = Question("1 2 3", (" 4", " 5", " 6"), 0)
    (logps,) = option_logps(lm, [question], batch_size=1)
    best = logps.index(max(logps))
    right, wrong = question._replace(answer=best), question._replace(answer=(best + 1) % 3)
    score = Choice(lambda: [right, right, wrong])(lm)
    assert score.items == (1.0, 1.0, 0.0)
    assert score.value == pytest.approx(2 / 3)
    assert score.stderr == pytest.approx(1 / 3)


def test_answer_nll_is_the_mean_over_examples(tiny):
    examples = [Example([1, 2, 3, 4], 1), Example([5, 6, 7], 2)]
    score = AnswerNLL(lambda tokenizer: examples)(LM(tiny, Words()))
    out = ModelForward(tiny)(collate(examples))
    assert score.value == pytest.approx(mean_nll(out.logits, out.targets).mean().item())


def test_nothing_to_score_is_an_error_and_not_a_zero():
    with pytest.raises(ValueError, match="no items"):
        mean_score([])
    with pytest.raises(ValueError, match="none of the 2 items"):
        mean_score([None, None])


def test_what_cannot_be_scored_is_neither_zero_nor_part_of_the_mean():
    score = mean_score([1.0, None, 0.0])
    assert score == (0.5, pytest.approx(0.5), 2, (1.0, None, 0.0), 1, None)
