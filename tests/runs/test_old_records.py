"""Runs of older versions, those in results/, still load, report, resume and rerun."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ilu.data.stream import Feed
from ilu.lab.sources import Documents, Facts
from ilu.models.named import is_at_hand
from ilu.runs.recipe import read_recipe
from ilu.runs.run import Options, run
from ilu.runs.run_dir import RunDir
from ilu.system.record import FIELDS, REPLACED, describe, restore, with_stable_names
from ilu.training.fit import Optim
from ilu.training.objective import Plain

RESULTS = Path(__file__).parents[2] / "results"
RUNS = sorted(path.parent for path in RESULTS.rglob("recipe.json"))
LAB_RUNS = [path for path in RUNS if path.parent.name == "demo"]
REAL = RESULTS / "demo-real"


def test_there_are_runs():
    assert {path.name for path in RUNS} >= {"original", "npo", "npo-ilu", "rmu", "rmu-ilu"}


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_it_loads_and_is_recorded_by_stable_names(path):
    recipe = read_recipe(path / "recipe.json")
    again = json.dumps(describe(recipe))
    assert ":" not in "".join(part for part in again.split('"') if part.startswith("ilu."))
    assert restore(json.loads(again)) == recipe


@pytest.mark.parametrize("path", LAB_RUNS, ids=lambda path: path.name)
def test_the_finished_run_is_recognised_and_left_as_it_is(path, tmp_path):
    recognised(path, tmp_path)


@pytest.mark.skipif(not is_at_hand("smollm2"), reason="smollm2: requirements-smollm2.txt")
@pytest.mark.filterwarnings("ignore:openai/gsm8k")
def test_so_is_a_run_of_a_real_model(hub, tmp_path):
    recognised(REAL / "rmu-ilu", tmp_path)


def recognised(path, tmp_path):
    """The run is finished for `resume`, which changes none of its files."""
    shutil.copytree(path, tmp_path / "run")
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    run(read_recipe(path / "recipe.json"), tmp_path / "run", Options(resume=True))
    kept = {p: text for p, text in before.items() if p.name != "cost.json"}
    assert {p: p.read_bytes() for p in kept} == kept


def test_it_reruns(tmp_path):
    """With one step and no attack, so that it takes seconds."""
    old = read_recipe(RESULTS / "demo" / "rmu-ilu" / "recipe.json")
    short = replace(old, optim=replace(old.optim, steps=1), attacks={}, metrics={})
    first = RunDir(RESULTS / "demo" / "rmu-ilu").rows("train")[0]
    again = run(short, tmp_path / "again").rows("train")[0]
    for term in ("forget", "retain", "invariance"):
        assert again[term] == pytest.approx(first[term], rel=1e-3)


def test_roles_come_from_the_names_that_older_data_had():
    recipe = read_recipe(RESULTS / "demo" / "rmu-ilu" / "recipe.json")
    assert {n: feed.role for n, feed in recipe.data.items()} == {
        "forget": "forget", "retain": "retain", "environment": "environment",
    }  # fmt: skip
    (attack,) = {a.feed.role for a in recipe.attacks.values()}
    assert attack == "task"


def test_older_names_of_types_functions_and_fields_are_read():
    optim = {"type": "ilu.train:Optim", "lr": 1.0, "steps": 1, "reach": "."}
    assert restore(optim) == Optim(lr=1.0, steps=1, perturbed=".")
    assert restore({"function": "ilu.robust.rules:plain"}) == Plain()
    feed = {"type": "ilu.data:Feed", "batch_size": 2,
            "source": {"type": "ilu.lab.sources:Documents", "domain": "agents"}}  # fmt: skip
    assert restore(feed) == Feed(Documents("agents"), 2)
    assert with_stable_names(feed)["source"]["type"] == "Documents"
    assert with_stable_names({"function": "ilu.robust.rules:plain"}) == REPLACED["plain"]
    assert "reach" in FIELDS["Optim"]


def test_older_names_of_values_are_read():
    facts = {"type": "Facts", "domain": "agents", "form": "told"}
    assert restore(facts) == Facts("agents", "sentence")
    assert restore({**facts, "form": "cloze"}) == Facts("agents", "cloze")


def test_a_setting_that_was_removed_is_read_only_where_it_was_off():
    optim = {"type": "ilu.train:Optim", "lr": 1.0, "steps": 1}
    assert restore({**optim, "fused_backward": False}) == Optim(lr=1.0, steps=1)
    with pytest.raises(ValueError, match="fused_backward = True, which this version no longer has"):
        restore({**optim, "fused_backward": True})
