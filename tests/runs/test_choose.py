"""Settings that are chosen from the model, and cautions about those that do not suit it."""

import json
import math

import pytest
import torch

from ilu.data.stream import Stream, collate
from ilu.methods.forget.npo import BETA_OF_A_TOKEN, NPO
from ilu.methods.forget.rmu import RMU, TIMES_THE_NORM, layer_by_depth
from ilu.methods.forget.simnpo import SimNPO
from ilu.models.forward import ModelForward
from ilu.models.load import load_model
from ilu.recipes import lab
from ilu.recipes.build import build, defaults
from ilu.runs.choose import bfloat16_steps, cautions, choose, slow_bfloat16
from ilu.runs.run import Options, run
from ilu.runs.sweep.worker import finished, recorded
from ilu.training.fit import Optim
from ilu.training.optim.bfloat16 import seen_step
from ilu.types import Example


@pytest.fixture(scope="module")
def lm():
    return load_model("lab")


@pytest.fixture(scope="module")
def streams(lm):
    found = {role: feed.source(lm.tokenizer) for role, feed in lab.data(4, 4).items()}
    return {role: Stream(examples, 4, 0) for role, examples in found.items()}


def test_the_coefficient_is_a_multiple_of_the_norm_without_the_first_token(lm):
    batch = collate([Example(list(range(5, 12)), 0), Example([7, 8, 9], 0)])
    with torch.no_grad():
        hidden = ModelForward(lm.model).hidden(batch, 2)
    norms = [hidden[0, t].norm() for t in range(1, 7)] + [hidden[1, t].norm() for t in range(1, 3)]
    mean = sum(norms) / len(norms)
    loss, note = RMU(layer=2, coefficient=None).calibrated(ModelForward(lm.model), batch)
    assert loss.coefficient == pytest.approx(TIMES_THE_NORM * mean.item(), rel=0.05)
    assert loss.coefficient == float(f"{loss.coefficient:.2g}")
    assert f"coefficient {loss.coefficient:g}" in note
    assert "block 2" in note
    assert loss.calibrated(ModelForward(lm.model), batch) == (loss, "")


def test_skipped_tokens_take_no_part_in_rmu(lm):
    batch = collate([Example(list(range(5, 12)), 0)])
    forward = ModelForward(lm.model)
    whole, later = (RMU(2, 10.0, skip=skip)(forward, forward, batch) for skip in (0, 1))
    hidden = forward.hidden(batch, 2)
    from ilu.methods.forget.rmu import steering_vector

    error = hidden - 10.0 * steering_vector(hidden.shape[-1], seed=0)
    each = error.square().mean(-1)[0]
    assert whole.item() == pytest.approx(each.mean().item(), rel=1e-5)
    assert later.item() == pytest.approx(each[1:].mean().item(), rel=1e-5)


@pytest.mark.parametrize(("blocks", "layer"), [(32, 7), (30, 7), (18, 4), (16, 4), (4, 1)])
def test_the_layer_is_at_the_published_depth(blocks, layer):
    assert layer_by_depth(blocks) == layer


def test_beta_is_by_the_tokens_per_answer(lm):
    batch = collate([Example(list(range(5, 12)), 1), Example(list(range(5, 9)), 2)])  # 6 and 2
    loss, note = NPO(beta=None).calibrated(ModelForward(lm.model), batch)
    assert loss.beta == float(f"{BETA_OF_A_TOKEN / 4:.2g}")
    assert "4 tokens per answer" in note


def test_a_target_within_the_states_is_cautioned_against(lm, streams):
    batch = streams["forget"](0)
    forward = ModelForward(lm.model)
    assert "is below the mean state norm of block 2" in RMU(2, 0.5).caution(forward, batch)
    assert RMU(2, 1e4).caution(forward, batch) == ""


def test_a_saturated_simnpo_is_cautioned_against(lm, streams):
    forward, batch = ModelForward(lm.model), streams["retain"](0)
    with torch.no_grad():
        nll = -forward.tokens(batch).mean().mean().item()
    saturated = math.log(2 / 0.05) / nll  # where the weight 2 sigmoid(-beta nll) is about .05
    assert "is too large for a loss of" in SimNPO(beta=2 * saturated).caution(forward, batch)
    assert SimNPO(beta=saturated / 4).caution(forward, batch) == ""


def test_steps_that_bfloat16_does_not_see():
    params = [torch.nn.Parameter(torch.full((100,), 0.1).bfloat16().float())]
    never = bfloat16_steps(Optim(lr=1e-8, steps=10, precision="bfloat16"), params)
    assert "sees the first step of `lr` 1e-08 at 0 times its size" in never
    assert "so are all steps together" in never
    # The spacing at .1 is 2^-11. A sum of steps is seen from half of it on, as all of it; this is
    # at most 1.25 times the sum from .8 of it on, which is 39.06 steps of 1e-5.
    later = bfloat16_steps(Optim(lr=1e-5, steps=100, precision="bfloat16"), params)
    assert "at 0 times its size, because it rounds the weights; 40 steps together" in later
    assert bfloat16_steps(Optim(lr=1e-8, steps=10), params) == ""
    assert bfloat16_steps(Optim(lr=1e-2, steps=1, precision="bfloat16"), params) == ""


def test_numbers_half_way_between_two_of_bfloat16_are_seen_to_step_too_far():
    spacing = 2.0**-11
    between = [torch.nn.Parameter(torch.full((100,), 0.125 - spacing / 2))]
    assert "times its size" in bfloat16_steps(
        Optim(lr=1e-5, steps=9, precision="bfloat16"), between
    )
    assert seen_step(between[0].detach(), 1e-5) == pytest.approx(spacing / 2e-5)


def test_random_numbers_are_seen_to_step_rightly_on_average():
    w = torch.rand(1_000_000, generator=torch.Generator().manual_seed(0))
    assert seen_step(w, 1e-5) == pytest.approx(1, abs=0.2)


def test_a_cpu_without_bfloat16_units_is_warned_of(monkeypatch):
    optim = Optim(lr=1e-3, steps=1, precision="bfloat16")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "amx_bf16": False})
    assert "this CPU has no bfloat16 units" in slow_bfloat16(optim, "cpu")
    assert slow_bfloat16(optim, "cuda") == ""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert slow_bfloat16(optim, "cpu") == ""


def test_a_forget_term_without_gradient_is_cautioned_against(lm, streams):
    weak = build("graddiff", {"model": "lab"})
    forget = weak.objective["forget"]
    from dataclasses import replace

    objective = {**weak.objective, "forget": replace(forget, weight=1e-9)}
    (found,) = cautions(replace(weak, objective=objective), lm, streams)
    assert "times that of the retain term" in found
    assert cautions(weak, lm, streams) == []


def test_measured_defaults_are_for_other_models_than_the_published_ones(monkeypatch):
    from ilu.recipes import build as module

    monkeypatch.setattr(module, "number_of_blocks", lambda name: 30)
    chosen = defaults("rmu", "org/model")
    assert (chosen["layer"], chosen["coefficient"], chosen["skip_first"]) == (7, None, 1)
    published = defaults("rmu", "org/model", published=True)
    assert (published["layer"], published["coefficient"], published["lr"]) == (7, 6.5, 5e-5)
    assert defaults("wmdp-rmu", "")["coefficient"] == 6.5
    assert defaults("rmu", "lab")["coefficient"] == 150.0
    for name in ("rmu-ilu", "rmu-control"):
        read = defaults(name, "org/model")
        assert (read["strength"], read["environment_batch_size"]) == (0.01, 4)
        assert "strength" not in defaults(name, "org/model", published=True)
    assert "strength" not in defaults("rmu", "org/model")
    assert "strength" not in defaults("npo-ilu", "org/model")


def test_a_run_records_what_was_chosen_and_says_it(tmp_path):
    notes = []
    recipe = build("rmu", {"model": "lab", "steps": 1, "coefficient": None, "skip_first": 1})
    out = run(recipe, tmp_path / "run", Options(on_note=notes.append))
    recorded = out.read("recipe")["objective"]["forget"]["loss"]
    assert recorded["coefficient"] > 0
    assert recorded["skip"] == 1
    assert [f"coefficient {recorded['coefficient']:g}" in note for note in notes] == [True]
    again = run(recipe, tmp_path / "run", Options(resume=True))
    assert again.read("recipe") == out.read("recipe")


def test_the_model_with_open_settings_is_chosen_for_once(lm, streams):
    recipe = build("npo", {"model": "lab", "beta": None})
    chosen = choose(recipe, lm, streams)
    assert chosen.recipe.objective["forget"].loss.beta > 0
    assert choose(chosen.recipe, lm, streams) == (chosen.recipe, [])


def test_done_says_whether_anything_was_forgotten(tmp_path):
    nothing = run(build("npo", {"model": "lab", "steps": 1, "lr": 1e-9}), tmp_path / "nothing")
    done = json.loads(nothing.file("done").read_text())
    assert done["nothing_forgotten"] is True
    assert done["forgotten"] == pytest.approx(0, abs=0.02)


def test_every_seed_has_the_same_settings(lm, streams):
    recipe = build("npo", {"model": "lab", "beta": None})
    other = {role: Stream(stream.examples, 4, 7) for role, stream in streams.items()}
    assert choose(recipe, lm, streams) == choose(recipe, lm, other)


def test_a_wrapped_loss_is_chosen_for_as_well(lm, streams):
    recipe = build("npo-lat", {"model": "lab", "beta": None})
    chosen = choose(recipe, lm, streams).recipe
    assert chosen.objective["forget"].loss.loss.beta > 0


def test_a_run_with_chosen_settings_is_known_as_finished(tmp_path):
    recipe = build("npo", {"model": "lab", "steps": 1, "beta": None})
    run(recipe, tmp_path / "run")
    assert finished(tmp_path / "run", recorded(recipe))
    other = build("npo", {"model": "lab", "steps": 1, "beta": None, "seed": 1})
    assert not finished(tmp_path / "run", recorded(other))
    unclipped = build("npo", {"model": "lab", "steps": 1, "beta": None, "clip": None})
    assert not finished(tmp_path / "run", recorded(unclipped))
