"""Validation during training: which step is kept, and whether a resumed run keeps the same."""

import math

import pytest
import torch

from ilu.data.splits import HeldOut, Trained
from ilu.evals.metrics.likelihood import AnswerNLL
from ilu.evals.metrics.multiple_choice import Choice
from ilu.models.load import read_weights
from ilu.recipes.build import build
from ilu.runs.run import Options, run
from ilu.runs.run_dir import RunDir
from ilu.runs.validation import chosen_step, lost
from ilu.system.errors import Stopped
from ilu.system.scores import Score
from ilu.types import Example


def recipe(folder, **settings):
    """NPO on a model of two blocks, at a rate that forgets within a few steps."""
    given = {
        "model": str(folder / "model"), "forget": str(folder / "forget.jsonl"),
        "retain": str(folder / "retain.jsonl"), "published": True, "lr": 1e-2, "batch_size": 2,
        "limit": 4, "steps": 6,
    }  # fmt: skip
    return build("npo", {**given, **settings})


def rows(*shares):
    first = {"step": 0, "forgotten": 0.0, "kept": 1.0}
    steps = enumerate(shares, 1)
    return [first, *({"step": i, "forgotten": f, "kept": k} for i, (f, k) in steps)]


@pytest.mark.parametrize(
    ("keep", "step"),
    [("last", 4), ("best", 2), (0.3, 1), (0.55, 2), (0.95, 4)],
)
def test_the_step_that_is_kept(keep, step):
    assert chosen_step(rows((0.2, 1.0), (0.5, 0.92), (0.7, 0.89), (0.9, 0.2)), keep) == step


def test_without_a_step_that_keeps_enough_the_best_is_the_one_that_keeps_most():
    assert chosen_step(rows((0.5, 0.3), (0.9, 0.6), (1.0, 0.5)), "best") == 2


def test_the_share_of_an_accuracy_is_above_guessing_and_that_of_a_loss_a_probability():
    accuracy = [Score(value, 0.0, 40, chance=0.25) for value in (0.85, 0.55)]
    assert lost(Choice(list), *accuracy) == pytest.approx(0.5)
    nll = AnswerNLL(lambda tokenizer: [])
    assert lost(nll, Score(1.0, 0, 4), Score(1.0 + math.log(4), 0, 4)) == pytest.approx(0.75)


def test_the_weights_of_the_chosen_step_are_saved(folder, tmp_path):
    out = run(recipe(folder, keep=0.2, eval_every=1), tmp_path / "kept")
    found = out.rows("validation")
    assert [row["step"] for row in found] == [0, 1, 2, 3, 4, 5, 6]
    step = chosen_step(found, 0.2)
    assert 0 < step < 6, "the test needs a step on the way"
    short = run(recipe(folder, steps=step), tmp_path / "short")
    kept, stopped = (read_weights(each.path / "model") for each in (out, short))
    assert all(torch.equal(kept[name], stopped[name]) for name in stopped)


def test_what_is_measured_is_the_model_at_that_step(folder, tmp_path):
    out = run(recipe(folder, eval_every=3), tmp_path / "watched")
    after = out.scores("after")
    last = out.rows("validation")[-1]
    assert last["step"] == 6
    assert last["forget"]["value"] == pytest.approx(after["forget_nll"].value, rel=1e-6)


@pytest.mark.parametrize("rank", [0, 2])
def test_a_resumed_run_keeps_the_same_weights(rank, folder, tmp_path):
    wanted = recipe(folder, keep=0.2, eval_every=1, lora_rank=rank)
    at_once = run(wanted, tmp_path / "whole")
    done = []
    stopping = Options(stop=lambda: len(done) >= 4, on_step=done.append)
    with pytest.raises(Stopped):
        run(wanted, tmp_path / "cut", stopping)
    half = run(wanted, tmp_path / "cut", Options(resume=True))
    assert half.rows("validation") == at_once.rows("validation")
    ours, theirs = (read_weights(each.path / "model") for each in (half, at_once))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not (half.path / "checkpoints").exists()


def test_training_goes_on_until_the_passes_are_made(folder, tmp_path):
    notes = []
    settings = {"passes": 2.5, "steps": 3}
    out = run(recipe(folder, **settings), tmp_path / "run", Options(on_note=notes.append))
    assert len(out.rows("train")) == 5
    assert not (out.path / "validation.jsonl").exists()
    assert notes == ["steps 5: 2.5 passes over 4 forget examples, 2 a step"]
    assert RunDir(out.path).read("recipe")["passes"] is None
    assert recipe(folder, steps=3).passes is None


def test_held_out_rows_are_not_trained_on_and_few_rows_are_not_divided():
    def source(count):
        return lambda tokenizer: [Example([1, i, i + 1], 1) for i in range(2, count + 2)]

    many = source(120)
    for share, size in ((0.1, 12), (0.25, 30)):
        left = {tuple(e.ids) for e in HeldOut(many, share)(None)}
        trained = {tuple(e.ids) for e in Trained(many, share)(None)}
        assert (len(left), len(trained)) == (size, 120 - size)
        assert not left & trained
    few = source(99)
    assert list(HeldOut(few)(None)) == []
    assert len(HeldOut(few, or_all=True)(None)) == len(Trained(few)(None)) == 99


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": 1.5}, "give last, best, or the share"),
        ({"eval_every": 0}, "`eval_every` 0: it must be at least 1"),
        ({"held_out": 1.0}, "below 1"),
        ({"passes": 0.0}, "above 0"),
        ({"keep": "best", "average_from": 2}, "exclude each other"),
    ],
)
def test_impossible_settings_are_refused(settings, message, folder):
    with pytest.raises(ValueError, match=message):
        recipe(folder, **settings)
