"""Merging: the formulas of TIES and DARE by hand, and what is merged."""

import pytest
import torch

from ilu.attacks.interpolate import Interpolate
from ilu.attacks.merge import Merge, dare, flat, ties, trim, write
from ilu.attacks.weight_edit import WeightEdit
from ilu.models.load import load_model, weights_hash
from ilu.recipes.attacks import Attacker
from ilu.recipes.settings import AttackSettings
from ilu.training.fit import Optim


def attacker(**more):
    settings = AttackSettings(original="lab", batch_size=4, **more)
    return Attacker(optim=Optim(lr=1e-2, steps=2), settings=settings)


def carry_out(attack, lm):
    attack(lm, reached=lambda stage: None, progress=lambda done, total: None)


def test_trimming_keeps_the_largest():
    tau = torch.tensor([0.1, -3.0, 2.0, 0.0, -0.5])
    assert trim(tau, 0.4).tolist() == [0.0, -3.0, 2.0, 0.0, 0.0]
    assert trim(tau, 0.0).tolist() == [0.0] * 5
    assert trim(tau, 1.0).equal(tau)


def test_ties_is_what_the_algorithm_says_weight_by_weight():
    """Second derivation: sorted lists and loops instead of tensors."""
    draw = torch.Generator().manual_seed(0)
    vectors = [torch.randn(40, generator=draw) for _ in range(3)]
    trimmed = []
    for tau in vectors:
        largest = sorted(range(40), key=lambda i, t=tau: -abs(float(t[i])))[:16]
        trimmed.append([float(tau[i]) if i in largest else 0.0 for i in range(40)])
    expected = []
    for column in zip(*trimmed, strict=True):
        total = sum(column)
        chosen = [x for x in column if x * total > 0]
        expected.append(sum(chosen) / len(chosen) if chosen else 0.0)
    assert ties(vectors, 0.4).tolist() == pytest.approx(expected, abs=1e-6)
    assert ties([torch.tensor([1.0]), torch.tensor([-1.0])], 1.0).item() == 0


def test_with_the_original_ties_is_the_trimmed_change():
    tau = torch.tensor([0.1, -3.0, 2.0, 0.0, -0.5])
    assert ties([tau, torch.zeros(5)], 0.4).equal(trim(tau, 0.4))


def test_dare_drops_a_share_and_keeps_the_mean():
    tau = torch.full((20_000,), 2.0)
    found = dare(tau, 0.75, torch.Generator().manual_seed(0))
    assert set(found.tolist()) == {0.0, 8.0}
    assert float((found == 0).float().mean()) == pytest.approx(0.75, abs=0.01)
    assert float(found.mean()) == pytest.approx(2.0, abs=0.1)
    assert dare(tau, 0.0, torch.Generator().manual_seed(0)).equal(tau)


def test_weights_are_written_where_they_were_read(tiny):
    before = weights_hash(tiny)
    write(tiny, flat(tiny))
    assert weights_hash(tiny) == before


def test_merging_linearly_with_the_original_is_interpolation():
    assert attacker()("merge:linear") == WeightEdit(Interpolate("lab", 0.5))
    assert attacker()("merge:linear@0.3") == WeightEdit(Interpolate("lab", 0.3))


@pytest.mark.parametrize("rule", ["linear", "ties", "dare"])
def test_the_other_model_is_a_fine_tune_of_the_original(rule):
    """Of an attacked model that is the original, only the change by fine-tuning is merged."""
    attack = attacker()(f"merge:{rule}@0.5:mood")
    assert isinstance(attack, Merge)
    assert (attack.rule, attack.parameter, attack.steps) == (rule, 0.5, 2)
    base, merged, tuned = (load_model("lab") for _ in range(3))
    carry_out(attack, merged)
    carry_out(attacker()("mood"), tuned)
    found, tau = flat(merged.model) - flat(base.model), flat(tuned.model) - flat(base.model)
    if rule == "linear":
        assert torch.allclose(found, tau / 2, atol=1e-6)
    elif rule == "ties":
        assert torch.allclose(found, trim(tau, 0.5), atol=1e-6)
    else:  # half is dropped, the rest doubled, and the mean with no change taken
        kept = found.abs() > 1e-7
        changed = float((tau.abs() > 1e-7).float().mean())
        assert float(kept.float().mean()) == pytest.approx(changed / 2, abs=0.02)
        assert torch.allclose(found[kept], tau[kept], atol=1e-6)


@pytest.mark.parametrize("name", ["merge:dare@1", "merge:ties@1.5", "merge:linear@-1"])
def test_shares_must_be_shares(name):
    with pytest.raises(ValueError, match="from 0 to 1"):
        attacker()(name)
