"""Every forget and retain loss against a limit, an identity or a second way of computing it."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from ilu.methods.forget.ceu import ceu
from ilu.methods.forget.circuit_breakers import Reroute
from ilu.methods.forget.divergence import Divergence
from ilu.methods.forget.dpo import DPO, dpo
from ilu.methods.forget.elm import ELM, answer_logits, erased_logits, growing
from ilu.methods.forget.idk import Refusal
from ilu.methods.forget.jensun import JensUn, cycle
from ilu.methods.forget.lat import Latent, LatentAttack, worst_shift
from ilu.methods.forget.lunar import LUNAR, mean_state, redirected
from ilu.methods.forget.max_entropy import MaxEntropy
from ilu.methods.forget.pdu import margin
from ilu.methods.forget.random_labels import RandomLabels, random_tokens
from ilu.methods.forget.repnoise import RepNoise, mmd
from ilu.methods.forget.rmu import RMU, AdaptiveRMU, steering_vector
from ilu.methods.forget.satimp import satimp
from ilu.methods.forget.simnpo import SimNPO
from ilu.methods.forget.task_vector import Negation
from ilu.methods.forget.undial import UNDIAL, undial
from ilu.methods.forget.wga import wga
from ilu.methods.forget.whp import offset_logits
from ilu.methods.retain.likelihood import JSD, HardLabels
from ilu.methods.retain.states import StateNorms
from ilu.models.forward import Frozen, ModelForward
from ilu.models.lm_head_loss import tokens_of
from ilu.models.token_math import mean_nll, one_hot_jsd, token_cross_entropy, token_jsd
from ilu.types import Batch, Outputs
from tests.build import batch, pad_right, with_others
from tests.close import assert_same_to_rounding
from tests.conftest import make_tiny
from tests.contracts.test_losses import views

Z = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
Y = torch.tensor([[1, 2, 3, -100], [8, -100, -100, -100]])


def at_start(model):
    """The model and its reference, which agree."""
    weights = {n: p.detach().clone() for n, p in model.named_parameters()}
    return ModelForward(model), Frozen(model, weights)


def of(logits):
    return tokens_of(Outputs(logits, Y))


def gradient(loss, z):
    z = z.clone().requires_grad_()
    return torch.autograd.grad(loss(z).sum(), z)[0]


def test_wga_is_ascent_at_beta_zero_and_leaves_the_forgotten_alone():
    torch.testing.assert_close(wga(of(Z), beta=0.0), -mean_nll(Z, Y))
    sharp = Z.clone()
    sharp[0, 0, 1] = -50.0  # token 1 is forgotten: no pull left
    pull = gradient(lambda z: wga(of(z), beta=1.0), sharp)
    assert pull[0, 0].abs().max() < 1e-12
    assert pull[0, 1].abs().max() > 1e-3


def test_wga_gradient_is_that_of_p_to_the_beta():
    """d/dz of mean p^b log p at constant weight = d/dz of mean p^b / b."""
    beta, valid = 2.0, Y != -100

    def power(z):
        p = z.log_softmax(-1).gather(-1, Y.clamp_min(0).unsqueeze(-1)).squeeze(-1).exp()
        return (p**beta / beta).where(valid, 0.0).sum(-1) / valid.sum(-1)

    torch.testing.assert_close(gradient(lambda z: wga(of(z), beta=beta), Z), gradient(power, Z))


def test_satimp_is_wga_without_importance():
    torch.testing.assert_close(satimp(of(Z), saturation=2.0, importance=0.0), wga(of(Z), beta=2.0))


def test_satimp_leaves_what_is_known_perfectly_alone():
    known = Z.clone()
    known[0, 0, 1] = 60.0
    assert (
        gradient(lambda z: satimp(of(z), saturation=5.0, importance=1.0), known)[0, 0].norm() == 0
    )


def test_undial_without_adjustment_teaches_what_is_known_already():
    valid = Y != -100
    entropy = torch.distributions.Categorical(logits=Z).entropy().where(valid, 0.0)
    own = undial(Z, Z, Y, beta=0.0)
    torch.testing.assert_close(own, entropy.sum(-1) / valid.sum(-1))
    assert gradient(lambda z: undial(z, Z, Y, beta=0.0), Z).abs().max() < 1e-12


def test_undial_matches_torch_soft_labels():
    target = (Z[0, 0] - 10.0 * F.one_hot(Y[0, 0], 9)).softmax(-1)
    one = undial(Z[:1, :1], Z[:1, :1], Y[:1, :1], beta=10.0)
    torch.testing.assert_close(one[0], F.cross_entropy(Z[:1, 0], target[None]))


def test_ceu_is_the_cross_entropy_to_all_other_tokens():
    p = Z[0, 1].softmax(-1)
    others = p.clone()
    others[2] = 0.0
    expected = F.cross_entropy(Z[:1, 1], (others / others.sum())[None])
    torch.testing.assert_close(ceu(Z[:1, 1:2], Y[:1, 1:2], skip=0)[0], expected)


def test_ceu_skips_how_answers_begin():
    pull = gradient(lambda z: ceu(z, Y, skip=2), Z)
    assert pull[0, :2].abs().max() == 0
    assert pull[0, 2].abs().max() > 0
    assert pull[1].abs().max() == 0  # the whole answer is skipped: value 0, not NaN


def jensen_shannon(p, q):
    """By its definition: the mean KL to the middle, by torch."""
    middle = (p + q) / 2
    sides = [torch.special.xlogy(x, x / middle).sum() for x in (p, q)]
    return (sum(sides) / 2).item()


def test_jsd_matches_its_definition_and_is_bounded():
    a, b = (z.softmax(-1) for z in (Z[0, 0], Z[1, 1]))
    ours = token_jsd(Z[:1, :1], Z[1:, 1:2])
    assert ours.item() == pytest.approx(jensen_shannon(a, b))
    far = 80 * F.one_hot(torch.tensor([[[0]], [[1]]]), 9)[:, :, 0].double()
    apart = token_jsd(far[:1], far[1:])
    assert apart.item() == pytest.approx(math.log(2))


def test_one_hot_jsd_matches_the_definition():
    p, q = Z[0, 0].softmax(-1), F.one_hot(Y[0, 0], 9).double()
    ours = one_hot_jsd(of(Z))
    assert ours[0, 0].item() == pytest.approx(jensen_shannon(p, q))
    assert ours[0, 3] == 0
    assert ours.max() <= math.log(2)


def test_jensun_repeats_the_refusal_over_the_answer():
    refusal = torch.tensor([[-100, 7, 8, -100, -100], [-100, -100, 5, -100, -100]])
    targets = torch.tensor([[-100, -100, 1, 2, 3], [-100, 4, 4, -100, -100]])
    expected = torch.tensor([[-100, -100, 7, 8, 7], [-100, 5, 5, -100, -100]])
    assert torch.equal(cycle(refusal, targets), expected)


def test_flattening_is_zero_when_all_logits_agree():
    assert margin(torch.full((1, 2, 5), 3.0), torch.tensor([[1, 2]])).item() == 0
    z = torch.tensor([[[1.0, 3.0]]])
    assert margin(z, torch.tensor([[0]])).item() == pytest.approx((3 - 2) ** 2)


def test_max_entropy_is_minus_the_entropy_of_the_answer(tiny):
    forward, reference = views(tiny)
    out = forward(batch())
    each = torch.distributions.Categorical(logits=out.logits).entropy()
    expected = -each.where(out.targets != -100, 0.0).sum(-1) / 6
    torch.testing.assert_close(MaxEntropy()(forward, reference, batch()), expected)


def test_dpo_starts_at_two_over_beta_log_two_and_pulls_at_the_gain(tiny):
    value = DPO(0.1)(*at_start(tiny), with_others(batch()))
    torch.testing.assert_close(value, torch.full((3,), 20 * math.log(2)))
    gain = torch.tensor([1.0, 2.0], requires_grad=True)
    (pull,) = torch.autograd.grad(dpo(gain, gain.detach(), beta=0.1).sum(), gain)
    torch.testing.assert_close(pull, -torch.ones(2))


def test_random_labels_are_the_same_in_every_epoch_and_under_padding():
    b = batch()
    drawn = random_tokens(b, vocabulary=1000, seed=0)
    assert torch.equal(drawn, random_tokens(pad_right(b, 3), vocabulary=1000, seed=0)[:, :8])
    assert not torch.equal(drawn, random_tokens(b, vocabulary=1000, seed=1))
    assert not torch.equal(drawn[0], drawn[1])


def test_random_labels_are_uniform():
    b = batch(examples=200)
    counts = random_tokens(b, vocabulary=4, seed=0).flatten().bincount(minlength=4)
    assert counts.sum() == 1600
    assert (counts - 400).abs().max() < 100


def test_random_labels_match_torch(tiny):
    forward, reference = at_start(tiny)
    out = forward(batch())
    drawn = random_tokens(batch(), vocabulary=32, seed=0)[:, 1:]
    each = F.cross_entropy(out.logits.transpose(1, 2), drawn, reduction="none")
    expected = each.where(out.targets != -100, 0.0).sum(-1) / 6
    torch.testing.assert_close(RandomLabels()(forward, reference, batch()), expected)


def test_divergence_pulls_at_the_original_model_where_a_true_kl_does_not(tiny):
    moved, first = views(tiny)  # away from the initial weights, where predictions are uniform
    p, log_q = moved(batch()).logits.softmax(-1), first(batch()).logits.log_softmax(-1)
    each = (p * log_q).sum(-1).where(batch().labels[:, 1:] != -100, 0.0)
    torch.testing.assert_close(Divergence()(moved, first, batch()), each.sum(-1) / 6)
    forward, reference = at_start(tiny)
    Divergence()(forward, reference, batch()).mean().backward()
    ours = sum(p.grad.norm() for p in tiny.parameters())
    tiny.zero_grad()
    out, ref = forward(batch()), reference(batch())
    true = F.kl_div(
        *(o.logits.log_softmax(-1) for o in (out, ref)), reduction="sum", log_target=True
    )
    true.backward()
    true_kl = sum(p.grad.norm() for p in tiny.parameters())
    assert true_kl < 1e-4 < 1e-2 < ours


def test_cross_entropy_of_distributions_skips_impossible_tokens():
    p = torch.tensor([0.0, -torch.inf, 0.0])
    value = token_cross_entropy(p, torch.tensor([1.0, -1e4, 1.0]))
    assert value.item() == pytest.approx(math.log(2), abs=1e-6)


def test_rerouting_is_one_at_the_start_and_zero_when_turned(tiny):
    forward, reference = at_start(tiny)
    torch.testing.assert_close(Reroute((0, 1))(forward, reference, batch()), torch.ones(3))

    class Turned:
        """Hidden states that point the other way."""

        def __call__(self, b):
            return forward(b)

        def tokens(self, b, *, entropy=False):
            return forward.tokens(b, entropy=entropy)

        def hidden(self, b, layer):
            return -forward.hidden(b, layer)

        def shifted(self, layer, by, batch):
            return self

    assert Reroute((0,))(Turned(), reference, batch()).abs().max() == 0


@pytest.mark.parametrize("loss", [JSD(), StateNorms((0, 1))])
def test_retain_losses_start_at_zero_with_a_finite_gradient(loss, tiny):
    value = loss(*at_start(tiny), batch())
    torch.testing.assert_close(value, torch.zeros(3), atol=1e-6, rtol=0)
    value.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in tiny.parameters())


def test_state_norms_are_the_distance(tiny):
    forward, reference = views(tiny)
    a, b = forward.hidden(batch(), 1), reference.hidden(batch(), 1)
    expected = (a - b).norm(dim=-1).mean(-1)
    assert_same_to_rounding(StateNorms((1,))(forward, reference, batch()), expected)


def test_hard_labels_are_the_originals_first_choice(tiny):
    forward, reference = views(tiny)
    out, labels = forward(batch()), reference(batch()).logits.argmax(-1)
    each = F.cross_entropy(out.logits.transpose(1, 2), labels, reduction="none")
    expected = each.where(out.targets != -100, 0.0).sum(-1) / 6
    torch.testing.assert_close(HardLabels()(forward, reference, batch()), expected)


def test_elm_with_equal_contexts_is_the_models_own_prediction():
    z = torch.randn(5, 9)
    same = erased_logits(z, z, z, eta=torch.full((5,), 100.0), top=9, temperature=1.0)
    torch.testing.assert_close(same.softmax(-1), z.softmax(-1))


def test_elm_moves_from_expert_to_novice_and_keeps_the_top():
    plain, expert = torch.zeros(1, 4), torch.tensor([[5.0, 0.0, 0.0, 0.0]])
    made = erased_logits(
        plain, expert, torch.zeros(1, 4), eta=torch.ones(1), top=3, temperature=1.2
    )
    assert made[0, 0] == -torch.inf
    assert made[0, 1:].isfinite().all()


def test_elm_strength_grows_along_each_answer():
    valid = torch.tensor([[False, True, True, True], [True, False, False, False]])
    assert growing(valid, 5.0).tolist() == [1.0, 3.0, 5.0, 1.0]


def test_elm_reads_the_same_tokens_behind_an_introduction(tiny):
    """An introduction of any length: the logits compared are those of the same answer tokens."""
    b = batch(prompt=1)
    longer = Batch(*(F.pad(t, (3, 0), value=v) for t, v in (
        (b.input_ids, 9), (b.attention_mask, 1), (b.labels, -100))))  # fmt: skip
    forward, reference = at_start(tiny)
    same = [out.targets[out.targets != -100].tolist() for out in (forward(b), forward(longer))]
    assert same[0] == same[1]
    assert answer_logits(forward, b).shape == answer_logits(forward, longer).shape
    with_contexts = Batch(b.input_ids, b.attention_mask, b.labels, (longer, longer))
    assert ELM()(forward, reference, with_contexts).isfinite().all()


def test_mmd_tells_noise_from_something_else():
    torch.manual_seed(0)
    x, y = torch.randn(60, 16), torch.randn(60, 16)
    assert mmd(x, x).item() == pytest.approx(0, abs=1e-6)
    assert 0 < mmd(x, y) < mmd(x, y + 2)


def test_offset_takes_off_what_the_reinforced_model_adds():
    plain, reinforced = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 0.0])
    assert offset_logits(plain, reinforced, alpha=5.0).tolist() == [1.0 - 5 * 2.0, 2.0]


def test_negation_goes_the_other_way_and_keeps_what_did_not_move():
    start = [torch.tensor([1.0, 0.1]), torch.tensor([0.3])]
    params = [torch.nn.Parameter(torch.tensor([1.5, 0.1])), torch.nn.Parameter(start[1].clone())]
    Negation(2.0)(params, start)
    torch.testing.assert_close(params[0].detach(), torch.tensor([0.0, 0.1]))
    assert torch.equal(params[1], start[1])


def test_adaptive_rmu_is_rmu_with_a_measured_coefficient(tiny):
    forward, reference = views(tiny)
    b = batch(examples=1)
    size = reference.hidden(b, 1).norm(dim=-1).mean().item()
    adaptive = AdaptiveRMU(layer=1, scale=5.0)(forward, reference, b)
    torch.testing.assert_close(adaptive, RMU(1, 5.0 * size)(forward, reference, b))


def test_topics_are_steered_apart():
    a, b = (steering_vector(64, seed=s) for s in (0, 1))
    assert torch.cosine_similarity(a, b, dim=0) == pytest.approx(0.75, abs=0.1)
    a, b = (steering_vector(64, seed=s, entries="gaussian") for s in (0, 1))
    assert abs(torch.cosine_similarity(a, b, dim=0)) < 0.4


def test_a_latent_attack_raises_the_loss_within_its_radius(tiny):
    forward, reference = at_start(tiny)
    attack = LatentAttack(attack_layer=0, epsilon=0.5, attack_steps=8)
    shift = worst_shift(SimNPO(), attack, forward, reference, batch())
    assert shift.norm(dim=-1).max() <= 0.5 + 1e-5
    before = SimNPO()(forward, reference, batch())
    assert (Latent(SimNPO(), attack)(forward, reference, batch()) > before).all()


def test_a_latent_attack_without_radius_is_no_attack(tiny):
    models = at_start(tiny)
    latent = Latent(SimNPO(), LatentAttack(attack_layer=0, epsilon=0.0, attack_steps=2))
    assert_same_to_rounding(latent(*models, batch()), SimNPO()(*models, batch()))


def test_a_shift_is_added_to_the_output_of_its_block(tiny):
    forward, _ = at_start(tiny)
    b, other, by = batch(), batch(), torch.randn(3, 8, 16)
    moved = forward.shifted(0, by, b)
    assert_same_to_rounding(moved.hidden(b, 0), forward.hidden(b, 0) + by)
    assert not torch.allclose(moved(b).logits, forward(b).logits)
    assert_same_to_rounding(moved(other).logits, forward(other).logits)  # a counterpart
    assert all(not m._forward_hooks for m in tiny.modules())


def test_a_latent_attack_says_when_it_cannot_reach_the_loss(tiny):
    above = Latent(RMU(layer=0), LatentAttack(attack_layer=1, attack_steps=1))
    with pytest.raises(ValueError, match="earlier `attack_layer`"):
        above(*at_start(tiny), batch())
    with pytest.raises(ValueError, match="earlier `attack_layer`"):
        Latent(Refusal(), LatentAttack(0, 1.0, 1))(*at_start(tiny), with_others(batch()))


def test_a_latent_attack_leaves_counterparts_of_any_length_alone(tiny):
    b = batch()
    longer = replace(b, others=tuple(pad_right(o, 5) for o in with_others(b).others))
    assert Latent(DPO(), LatentAttack(0, 1.0, 2))(*at_start(tiny), longer).isfinite().all()


def test_refusal_is_the_likelihood_of_the_refusal(tiny):
    forward, reference = at_start(tiny)
    b = with_others(batch())
    out = forward(b.others[0])
    expected = mean_nll(out.logits, out.targets)
    torch.testing.assert_close(Refusal()(forward, reference, b), expected)


def test_undial_teaches_what_the_original_says(tiny):
    forward, reference = views(tiny)
    out, ref = forward(batch()), reference(batch())
    expected = undial(out.logits, ref.logits, out.targets, beta=10.0)
    torch.testing.assert_close(UNDIAL(10.0)(forward, reference, batch()), expected)


def test_jensun_is_near_zero_when_the_refusal_is_certain(tiny):
    class Certain:
        """Always predicts token 7."""

        def __call__(self, b):
            logits = torch.zeros(*b.labels[:, 1:].shape, 32)
            logits[..., 7] = 50.0
            return Outputs(logits, b.labels[:, 1:])

        def tokens(self, b, *, entropy=False):
            raise AssertionError

        def hidden(self, b, layer):
            raise AssertionError

        def shifted(self, layer, by, batch):
            raise AssertionError

    b = batch()
    sevens = replace(b, labels=torch.full_like(b.labels, 7).where(b.labels != -100, -100))
    refused, other = (replace(b, others=(o,)) for o in (sevens, b))
    assert JensUn()(Certain(), Certain(), refused).max() < 1e-6
    assert JensUn()(Certain(), Certain(), other).min() > 0.5


def test_elm_moves_away_from_the_expert(tiny):
    """The expert's favourite token is what must become unlikely."""
    forward, reference = views(tiny)
    b = with_others(batch())
    plain, expert, novice = (answer_logits(reference, x) for x in (b, *b.others))
    valid = b.labels[:, 1:] != -100
    target = erased_logits(plain, expert, novice, eta=growing(valid, 5.0), top=50, temperature=1.2)
    each = token_cross_entropy(target, answer_logits(forward, b)).view(3, -1)
    torch.testing.assert_close(ELM(eta=5.0)(forward, reference, b), each.mean(-1))


def test_repnoise_adds_its_three_parts(tiny):
    forward, reference = at_start(tiny)
    b = with_others(batch())
    kept, lost = (-forward.tokens(x).mean() for x in (b.others[0], b))
    without = RepNoise(layer=1, alpha=2.0, beta=0.0)(forward, reference, b)
    torch.testing.assert_close(without, kept - 2.0 * torch.log1p(lost))
    noisy = RepNoise(layer=1, alpha=0.0, beta=3.0)
    noise = noisy.noise(forward.hidden(b, 1), b)
    torch.testing.assert_close(noisy(forward, reference, b), kept + 3.0 * noise)


def test_redirection_moves_the_mean_state_of_a_text_to_that_of_its_refusal():
    h = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    real = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    forget, refusal = mean_state(h, real), torch.randn(2, 3)
    torch.testing.assert_close(forget[1], h[1, :2].mean(0))
    torch.testing.assert_close(mean_state(redirected(h, forget, refusal, c=1.0), real), refusal)


def test_lunar_is_least_squares_in_the_last_matrix_of_the_mlp():
    """A second way: the closed form from the inputs of the matrix and its shifted outputs."""
    torch.manual_seed(0)
    model = make_tiny().double()
    forward, reference = at_start(model)
    loss, b = LUNAR(layer=1, coefficient=2.0), with_others(batch(examples=24, tokens=9))
    linear = model.model.layers[1].mlp.down_proj
    inputs = []
    hook = linear.register_forward_hook(lambda m, args, out: inputs.append(args[0].detach()))
    shown = b.others[0]
    h, g = (reference.hidden(x, 1).double() for x in (b, shown))
    hook.remove()
    r = mean_state(g, shown.labels != -100) - mean_state(h, b.attention_mask)
    real = b.attention_mask.bool()
    a = inputs[0].double()[real]
    moved = a @ linear.weight.detach().T + 2.0 * r.repeat_interleave(real.sum(1), 0)
    closed = torch.linalg.lstsq(a, moved).solution.T
    assert len(a) > a.shape[1]
    start = loss(forward, reference, b).mean().item()
    with torch.no_grad():
        linear.weight.copy_(closed)
    least = loss(forward, reference, b).mean()
    (slope,) = torch.autograd.grad(least, [linear.weight])
    assert least.item() < start
    assert slope.abs().max() < 1e-6
