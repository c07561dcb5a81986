"""UNDO's noise against a second derivation, and its settings (arXiv 2506.06278)."""

import math

import pytest
import torch

from ilu.methods.robust.undo import WINDOW, Undo, noised, xavier_uniform
from ilu.training.fit import Optim
from tests.conftest import make_tiny


def test_noise_is_uniform_within_the_bound_of_fan_in_and_fan_out():
    fan_out, fan_in = 300, 500
    n = xavier_uniform((fan_out, fan_in), torch.Generator().manual_seed(0))
    bound = math.sqrt(6 / (fan_in + fan_out))
    assert n.abs().max() <= bound
    assert n.abs().max() > 0.999 * bound
    assert n.mean().abs() < 4 * bound / math.sqrt(3 * n.numel())  # four standard errors
    # The variance of a uniform variable within +-c is c^2 / 3, here 2 / (fan_in + fan_out).
    assert n.var().item() == pytest.approx(2 / (fan_in + fan_out), rel=0.02)
    quarters = torch.histc(n, 4, -bound, bound) / n.numel()
    assert torch.allclose(quarters, torch.full((4,), 0.25), atol=0.01)


def test_further_dimensions_count_to_both_fans_and_vectors_have_no_noise():
    n = xavier_uniform((40, 30, 7), torch.Generator().manual_seed(0))
    bound = math.sqrt(6 / (7 * 40 + 7 * 30))
    assert 0.99 * bound < n.abs().max() <= bound
    assert torch.equal(xavier_uniform((9,), torch.Generator().manual_seed(0)), torch.zeros(9))


@pytest.mark.parametrize(("a", "b"), [(0.3, 0.1), (0.6, 1.0), (0.0, 0.5), (1.0, 0.0)])
def test_the_formula_entry_by_entry(a, b):
    w, n = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    found = noised(w, n, a=a, b=b)
    for i in range(3):
        for j in range(4):
            old, new = w[i, j].item(), n[i, j].item()
            assert found[i, j].item() == pytest.approx(old - a * (old - b * new), abs=1e-12)


def weights(model):
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def test_no_share_leaves_every_weight_and_the_full_share_leaves_nothing():
    model, other = make_tiny(), make_tiny()
    before = weights(model)
    Undo(noise_share=0.0)(dict(model.named_parameters()), seed=3)
    assert all(torch.equal(before[n], p) for n, p in model.named_parameters())
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(-7).add_(1)  # other weights of the same shapes
    for each in (model, other):
        Undo(noise_share=1.0, noise_scale=1.0)(dict(each.named_parameters()), seed=3)
    for (n, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q), n
        assert (p.ndim > 1) == bool(p.any()), n


def test_vectors_are_scaled_and_each_matrix_gets_noise_of_its_own_shape():
    model = make_tiny()
    before = weights(model)
    Undo(noise_share=0.6, noise_scale=0.1)(dict(model.named_parameters()), seed=3)
    for n, p in model.named_parameters():
        if p.ndim == 1:
            assert torch.equal(p, (1 - 0.6) * before[n])
            continue
        noise = (p.detach() - (1 - 0.6) * before[n]) / (0.6 * 0.1)
        bound = math.sqrt(6 / sum(p.shape))
        assert 0.9 * bound < noise.abs().max() < 1.001 * bound
    layers = model.get_parameter("model.layers.0.mlp.gate_proj.weight")
    assert not torch.equal(layers, model.get_parameter("model.layers.0.mlp.up_proj.weight"))


def test_the_seed_decides_the_noise_and_a_pattern_its_weights():
    first, second, third = make_tiny(), make_tiny(), make_tiny()
    undo = Undo(noised_weights=r"mlp\.")
    for model, seed in ((first, 1), (second, 1), (third, 2)):
        undo(dict(model.named_parameters()), seed)
    original = weights(make_tiny())
    for n, p in first.named_parameters():
        assert torch.equal(p, second.get_parameter(n))
        assert torch.equal(p, original[n]) == ("mlp." not in n), n
        assert torch.equal(p, third.get_parameter(n)) == ("mlp." not in n), n


def test_the_distillation_trains_all_weights_at_its_own_rate():
    first = Optim(lr=1e-3, steps=5, warmup=3, parameters="down", perturbed=".", average_from=2,
                  micro_batch=4, weight_decay=0.1)  # fmt: skip
    undo = Undo(distil_steps=7, distil_lr=0.5, distil_schedule="linear")
    assert undo.optim(first) == Optim(lr=0.5, steps=7, schedule="linear", micro_batch=4,
                                      weight_decay=0.1)  # fmt: skip


def test_it_is_close_once_the_mean_over_the_last_steps_is():
    falling = [1.0, *(0.3 for _ in range(WINDOW))]
    assert Undo(close_enough=0.31).is_close(falling)
    assert not Undo(close_enough=0.31).is_close(falling[:-1])  # the first step counts yet
    assert not Undo(close_enough=0.29).is_close(falling)
    assert not Undo(close_enough=2.0).is_close(falling[: WINDOW - 1])
    assert not Undo().is_close([0.0] * WINDOW)


@pytest.mark.parametrize(
    ("name", "value"),
    [("noise_share", 1.1), ("noise_share", -0.1), ("noise_scale", -1.0), ("distil_steps", 0),
     ("distil_lr", 0.0), ("close_enough", 0.0), ("noised_weights", "(")],
)  # fmt: skip
def test_settings_that_cannot_be(name, value):
    with pytest.raises(ValueError, match=name):
        Undo(**{name: value})
