"""The study of relearning: its recipes, its further attacks, its record and its picture."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from ilu.lab.sources import Documents, Facts
from ilu.recipes import lab
from ilu.runs.run_dir import RunDir
from studies.relearning import table
from studies.relearning.cells import Cell, attacked_place, cells, place
from studies.relearning.further import SEARCHED, further_attacks, further_jobs
from studies.relearning.picture import APART, CEILING, FIGURE, draw, label_heights
from studies.relearning.run import NOISE, recipe_of
from studies.relearning.table import (
    RESULTS,
    after_all_attacks,
    record,
    recorded_rows,
    shown,
    spread,
    to_markdown,
)
from tests.fabricate import HALF, KNOWN, LOST, MOST, make_run

WEAK = (1, 1, 0, 0, 0, 0, 0, 0)


def test_short_names_are_rmu_with_that_ending():
    wanted = [c.method for c in cells(["rmu", "tar", "sam", "layered"], (), ())]
    assert wanted[2:] == ["rmu", "rmu-tar", "rmu-sam", "layered"]


@pytest.mark.parametrize("method", ["repselect", "layered", "gru", "lunar", "tar", "sam"])
def test_every_method_of_the_study_is_a_recipe_with_its_attacks(method):
    *_, alone, undone = cells([method], NOISE[:1], (3,))
    for cell in (alone, undone):
        recipe = recipe_of(cell, 0, tiny=True)
        assert recipe.objective
        assert "relearn" in recipe.attacks


def test_further_attacks_train_on_a_half_and_measure_the_other():
    attacks = further_attacks(3, tiny=False)
    assert list(attacks) == ["rtt-a", "rtt-b", *SEARCHED]
    assert all(each.only_end and each.seed == 3 for each in attacks.values())
    first = attacks["rtt-a"]
    assert first.feed.source == Documents("agents", stop=60)
    (goal,) = first.goals.values()
    assert goal == lab.relearn_half("a", 60).goals["others_accuracy"]
    asked = {q.prompt for q in Facts("agents", start=60)()}
    assert {q.prompt for q in goal.questions()} == asked  # pyright: ignore
    trials = {(attacks[name].optim.lr, attacks[name].optim.steps) for name in SEARCHED}
    assert trials == {(3e-3, 30), (3e-4, 120), (1e-3, 120)}


def test_only_models_of_finished_runs_are_attacked_in_folders_of_their_own(tmp_path):
    done, unfinished = Cell("npo"), Cell("rmu", 0.6, 3)
    for each, is_done in ((done, True), (unfinished, False)):
        run = make_run(place(tmp_path, each, 0), each.method, KNOWN, LOST, {}, done=is_done)
        (run / "model").mkdir()
    found = further_jobs(tmp_path, [done, unfinished], 2)
    assert list(found) == [attacked_place(tmp_path, done, 0)]
    (recipe,) = found.values()
    assert recipe.model == str((tmp_path / "npo-seed0/model").resolve())
    assert recipe.leaves_the_model


def end(forget, others, utility=KNOWN):
    """The end of a relearning attack."""
    return {
        "end": {"forget_accuracy": forget, "others_accuracy": others, "utility": utility},
    }


def attacked(folder: Path, weak_utility=KNOWN) -> dict[str, tuple[float | None, str | None]]:
    """A model that forgot all; its relearning restores half, its halves 1/4 and 3/4, a trial 3/4.

    The trial leaves ``weak_utility``.
    """
    run = make_run(folder / "run", "npo", KNOWN, LOST, {"relearn": end(HALF, HALF)})
    trials = dict(zip(SEARCHED, (MOST, WEAK, LOST), strict=True))
    strong, *others = (end(LOST, items) for items in trials.values())
    strong["end"]["utility"] = weak_utility
    further = {
        "rtt-a": end(LOST, WEAK),
        "rtt-b": end(LOST, MOST),
        **dict(zip(SEARCHED, (strong, *others), strict=True)),
    }
    again = make_run(folder / "again", "npo-attacks", LOST, LOST, further)
    return dict(after_all_attacks(RunDir(run), RunDir(again)))


def test_halves_are_averaged_and_the_strongest_attacker_is_taken(tmp_path):
    found = attacked(tmp_path)
    assert found["rtt"][0] == pytest.approx((0.75 + 0.25) / 2)
    assert found["searched"] == (0.25, "relearn-3e-3-30")
    assert found["worst_usable"][0] == 0.25


def test_an_attacker_that_breaks_the_model_gains_nothing(tmp_path):
    found = attacked(tmp_path, weak_utility=HALF)
    assert found["searched"] == (0.5, "relearn")
    assert found["worst_usable"] == (0.25, "rtt-b")


def test_a_spread_needs_a_value_of_every_seed():
    assert spread([0.5]) == [0.5, None, None]
    assert spread([]) is None
    assert spread([0.5, None]) is None
    t, stderr = 12.706, 0.1
    assert spread([0.4, 0.6]) == pytest.approx([0.5, 0.5 - t * stderr, 0.5 + t * stderr], rel=1e-3)


def test_the_table_shows_what_is_unknown_as_a_dash():
    assert [shown(each) for each in (None, 0.5, [0.5, None, None], [0.5, 0.4, 0.6])] == [
        "-", "0.500", "0.500", "0.500 (0.400 to 0.600)"
    ]  # fmt: skip
    published = json.loads(RESULTS.read_text(encoding="utf-8"))
    lines = to_markdown(published).splitlines()
    assert len(lines) == 2 + len(published["rows"]) + 1
    assert lines[-1].startswith("| lab-never |")


def test_rows_of_cells_without_runs_stay_in_the_record(tmp_path):
    published = json.loads(RESULTS.read_text(encoding="utf-8"))
    found = record(tmp_path, cells(["tar"], (), ()), 2, recorded_rows(RESULTS))
    assert (found["ceiling"], found["rows"]) == (published["ceiling"], published["rows"])
    assert record(tmp_path, [], 2)["rows"] == recorded_rows(tmp_path / "none.json") == []


def test_a_row_with_runs_takes_the_place_of_the_one_before(tmp_path, monkeypatch):
    new = {"method": "rmu", "noise": None, "steps": None, "seeds": 9}
    monkeypatch.setattr(table, "row", lambda out, cell, seeds: new)
    found = record(tmp_path, [Cell("rmu")], 2, recorded_rows(RESULTS))["rows"]
    labels = [(r["method"], r["noise"], r["steps"]) for r in found]
    assert len(set(labels)) == len(labels)
    assert new in found


def test_labels_are_apart_from_each_other_and_from_points_on_their_right():
    places = [(0.0, 0.0), (0.02, 0.01), (0.06, 0.02), (0.5, 0.0)]
    heights = label_heights(places)
    assert heights[3] == 0.0  # far from all others
    near = sorted(heights[:3])
    assert all(b - a >= APART - 1e-9 for a, b in pairwise(near))
    assert all(heights[0] - y >= APART - 1e-9 for _, y in places[1:3])


def test_the_picture_names_every_row_and_the_ceiling():
    published = json.loads(RESULTS.read_text(encoding="utf-8"))
    for svg in (draw(published), FIGURE.read_text(encoding="utf-8")):
        assert svg.startswith("<svg")
        assert f">{CEILING}<" in svg
        assert ">rmu-undo (0.6, 530 steps)<" in svg
        for row in published["rows"]:
            assert f">{row['method']}" in svg
    assert draw(published) == draw(published)
