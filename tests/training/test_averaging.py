"""Averaging the last weights: the right ones, in float32, masks to the bit, exact resume."""

import pytest
import torch
from torch import nn

from ilu.system.errors import Stopped
from ilu.training.checkpoint import Checkpoints
from ilu.training.fit import Optim, fit
from ilu.training.optim.averaging import Average
from tests.conftest import make_tiny
from tests.training.test_optimizers import OBJECTIVE, same, streams


def trained(**settings):
    model, seen = make_tiny(), []
    run = {k: settings.pop(k) for k in ("mask", "checkpoints", "stop") if k in settings}

    def log(row):
        seen.append([p.detach().clone() for p in model.parameters()])

    fit(model, OBJECTIVE, streams(), Optim(**{"lr": 1e-2, **settings}), log=log, **run)
    return model, seen


def test_the_result_is_the_mean_of_the_chosen_iterates():
    plain, iterates = trained(steps=12)
    model, again = trained(steps=12, average_from=4, average_every=3)
    assert all(torch.equal(a, b) for x, y in zip(iterates, again, strict=True)
               for a, b in zip(x, y, strict=True))  # fmt: skip
    chosen = [iterates[t - 1] for t in (4, 7, 10)]
    for p, last, *xs in zip(model.parameters(), plain.parameters(), *chosen, strict=True):
        torch.testing.assert_close(p.detach(), torch.stack(xs).mean(0))
        assert not torch.equal(p, last)


def test_the_published_setting_averages_six_iterates():
    p = nn.Parameter(torch.zeros(1))
    average = Average({"p": p}, 100)
    for t in range(1, 126):
        p.data.fill_(t)
        average.add(t)
    average.put()
    assert p.item() == sum((100, 105, 110, 115, 120, 125)) / 6


def test_what_a_mask_holds_keeps_its_bits():
    start = make_tiny()
    torch.manual_seed(0)
    mask = {n: torch.rand_like(p) < 0.3 for n, p in start.named_parameters()}
    model, _ = trained(steps=9, weight_decay=0.1, mask=mask, average_from=1, average_every=1)
    for (n, p), before in zip(model.named_parameters(), start.parameters(), strict=True):
        held = ~mask[n]
        assert torch.equal(p[held].view(torch.int32), before[held].view(torch.int32))
        assert not torch.equal(p[mask[n]], before[mask[n]])


def test_also_negative_zeros_keep_their_bits():
    p = nn.Parameter(torch.tensor([-0.0, 1.0]))
    average = Average({"p": p}, 1, 1)
    for t in (1, 2, 3):
        average.add(t)
    average.put()
    assert torch.signbit(p).tolist() == [True, False]


@pytest.mark.parametrize("at", [3, 5, 9])
def test_a_stopped_and_resumed_run_is_equal_to_the_bit(at, tmp_path):
    settings = {"steps": 10, "average_from": 4, "average_every": 2}
    whole, _ = trained(**settings)
    points, calls = Checkpoints(tmp_path / "c"), []

    def stop():
        calls.append(0)
        return len(calls) == at

    with pytest.raises(Stopped):
        trained(**settings, checkpoints=points, stop=stop)
    assert same(whole, trained(**settings, checkpoints=points)[0])


def test_a_run_killed_after_its_last_step_is_averaged_all_the_same(tmp_path):
    settings = {"steps": 6, "average_from": 4, "average_every": 1}
    points = Checkpoints(tmp_path / "c", every=6)
    whole, _ = trained(**settings, checkpoints=points)
    again, steps = trained(**settings, checkpoints=points)
    assert steps == []
    assert same(whole, again)


def test_the_mean_of_bfloat16_weights_runs_in_float32():
    p = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    average = Average({"p": p}, 1, 1)
    for t, x in enumerate((1.0, 1.0, 1.0, 1.03125), start=1):
        p.data.fill_(x)
        average.add(t)
    assert average.mean["p"].item() == pytest.approx(1.0078125)
    average.put()
    assert p.dtype == torch.bfloat16
    assert p.item() == 1.0078125


@pytest.mark.parametrize("bad", [{"average_from": 0}, {"average_from": 11}, {"average_every": 0}])
def test_impossible_averages_are_refused(bad):
    with pytest.raises(ValueError, match=r"average_(from|every)"):
        Optim(lr=1e-3, steps=10, **bad)
