"""``ilu attack --search``: the strongest usable attacker, in the same number of trials for each."""

import json

import pytest

from ilu.cli import attack_search
from ilu.cli.arguments.attack import read
from ilu.cli.attack_search import NOTHING, value, with_settings
from ilu.runs.run_dir import RunDir
from tests.command import in_process
from tests.fabricate import HALF, KNOWN, LOST, MOST, make_run

WORDS = ("lab", "--suite", "lab", "--attack", "mood", "--out", "out")


def stages(forget, utility):
    return {point: {"forget_accuracy": forget, "utility": utility}
            for point in ("quarter", "half", "end")}  # fmt: skip


def test_the_value_is_what_comes_back_in_a_usable_model(tmp_path):
    def trial(name, forget, utility):
        return RunDir(make_run(tmp_path / name, "a", LOST, LOST, {"mood": stages(forget, utility)}))

    assert value(trial("weak", HALF, KNOWN), 0.9) == -0.5
    assert value(trial("strong", MOST, KNOWN), 0.9) == -0.25
    assert value(trial("broken", KNOWN, HALF), 0.9) == NOTHING
    assert value(trial("nothing", LOST, KNOWN), 0.9) == -1.0 > NOTHING


def test_settings_go_where_they_belong():
    wanted, _ = read(WORDS)
    found = with_settings(wanted, {"lr": 2e-3, "steps": 31.0, "lora_rank": 4.0})
    assert (found.lr, found.steps, found.settings.lora_rank) == (2e-3, 31, 4)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--search", "colour=1:2"), "--search colour: choose lr, steps"),
        (("--search", "lr=2:1"), "LOW must be below HIGH"),
        (("--search", "steps=1:2", "--trials", "0"), "trials must be at least 1"),
        (("--search", "steps=1:2", "--usable", "2"), "the share from 0 to 1"),
        (("--search", "steps=1:2", "--probe", "lens"), "no --probe"),
        (("--search", "steps=1:2", "--attack", "moood"), "did you mean 'mood'"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_a_model_is_loaded(
    more, message, tmp_path, monkeypatch
):
    monkeypatch.setattr("ilu.runs.prepare.load_model", None)
    done = in_process(("attack", *WORDS, *more), tmp_path)
    assert done.returncode == 2
    assert message in done.stderr


def test_every_attack_gets_the_same_trials_and_the_strongest_is_first(tmp_path, monkeypatch):
    """The trials are real runs; what they recover is set here: more with more steps."""
    tried = []

    def recovered(run, usable):
        steps = next(iter(run.read("recipe")["attacks"].values()))["optim"]["steps"]
        tried.append((run.path.name.partition("-")[0], steps))
        return -1 / steps if "sums" in run.path.name else NOTHING

    monkeypatch.setattr(attack_search, "value", recovered)
    words = ("--attack", "sums", "--limit", "2", "--batch-size", "2", "--only-end")
    words = ("attack", *WORDS, *words, "--search", "steps=1:3", "--trials", "2")
    done = in_process(words, tmp_path)
    assert done.returncode == 0, done.stderr
    assert [name for name, _ in tried] == ["mood", "mood", "sums", "sums"]
    found = json.loads((tmp_path / "out" / "search.json").read_text())["strongest"]
    assert [each["attack"] for each in found] == ["sums", "mood"]
    assert found[0]["forgotten"] == 1 / max(s for n, s in tried if n == "sums")
    assert found[1]["forgotten"] is None
    runs = sorted((tmp_path / "out" / "runs").iterdir())
    before = [run.stat().st_mtime_ns for run in runs]
    assert in_process(words, tmp_path).returncode == 0
    assert [
        run.stat().st_mtime_ns for run in sorted((tmp_path / "out" / "runs").iterdir())
    ] == before
