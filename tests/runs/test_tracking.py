"""Live tracking: what a tracker is told, and that its absence is said in a line."""

import pytest

from ilu.recipes.lab import finetune
from ilu.runs.recipe import Recipe
from ilu.runs.tracking import of_attack, tracking, untracked
from ilu.scores import Score
from ilu.training.fit import Optim

RECIPE = Recipe(
    name="npo",
    model="lab",
    data={},
    objective={},
    optim=Optim(lr=1e-3, steps=10),
    metrics={},
    attacks={"mood": finetune("mood", 8), "sums": finetune("sums", 4)},
    seed=3,
)


@pytest.fixture
def accelerator(monkeypatch):
    """Stands for Accelerate's class; the calls it gets."""
    calls = []

    class Recorder:
        def __init__(self, **settings):
            calls.append(("open", settings))

        def init_trackers(self, project, **settings):
            calls.append(("init", project, settings))

        def log(self, values, step):
            calls.append(("log", values, step))

        def end_training(self):
            calls.append(("end",))

    monkeypatch.setattr("accelerate.Accelerator", Recorder)
    monkeypatch.setattr("ilu.runs.tracking.need", lambda *_: None)
    return calls


def test_scores_of_an_attack_come_after_all_earlier_steps():
    scores = {"utility": Score(0.5, 0.1, 9)}
    assert of_attack(RECIPE, "mood", 2, scores) == ({"mood/utility": 0.5}, 12)
    assert of_attack(RECIPE, "sums", 4, scores) == ({"sums/utility": 0.5}, 22)


@pytest.mark.parametrize("tracker", ["trackio", "wandb", "tensorboard"])
def test_a_tracker_is_opened_beside_the_run_and_closed_whatever_happens(
    accelerator, tmp_path, tracker
):
    def fail():
        with tracking(tracker, RECIPE, tmp_path / "first") as track:
            track({"loss": 2.0}, 7)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    opened, begun, logged, ended = accelerator
    assert opened[1]["log_with"] == tracker
    assert opened[1]["project_dir"] == str(tmp_path / "tracking")
    names = (begun[1], begun[2]["init_kwargs"].get(tracker, {}).get("name"))
    assert "first" in names
    assert begun[2]["config"] == {"recipe": "npo", "model": "lab", "seed": 3}
    assert (logged, ended) == (("log", {"loss": 2.0}, 7), ("end",))
    assert not (tmp_path / "first").exists()  # the run makes its folder itself


def test_without_the_flag_nothing_is_tracked(tmp_path):
    with tracking(None, RECIPE, tmp_path / "first") as track:
        assert track is untracked
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_that_is_missing_is_said_with_the_way_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr("ilu.system.optional.find_spec", lambda name: None)
    with (
        pytest.raises(ValueError, match=r"wandb needs wandb, .*: pip install 'wandb>=[\d.]+'$"),
        tracking("wandb", RECIPE, tmp_path / "first"),
    ):
        pass
