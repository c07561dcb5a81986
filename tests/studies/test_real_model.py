"""The intervals of the study on a real model, and that its ways are comparable."""

import pytest

from ilu.runs.results.forget_metric import FORGET, OTHERS
from ilu.runs.run_dir import RunDir
from ilu.system.scores import Score
from studies.real_model import table
from studies.real_model.attackers import ORIGINAL
from studies.real_model.cells import STEPS, WAYS, Attacks, Cell, recipe
from studies.real_model.intervals import Place, gains, interval


def test_an_interval_covers_the_mean_and_is_wider_for_fewer_facts():
    half = [0.0, 1.0]
    few, many = (interval({Place("t", 0): half * n}) for n in (5, 50))
    for mean, low, high in (few, many):
        assert mean == 0.5
        assert low < mean < high
    assert few[2] - few[1] > 2 * (many[2] - many[1])
    # The standard error of 100 coin flips is .05, that of the binomial: 95 % is about +-.098.
    assert many[2] - many[1] == pytest.approx(0.196, abs=0.03)


def test_seeds_that_differ_widen_the_interval_that_facts_alone_would_give():
    one = interval({Place("t", 0): [0.5] * 40})
    two = interval({Place("t", 0): [0.2] * 40, Place("t", 1): [0.8] * 40})
    assert one == [0.5, 0.5, 0.5]
    assert two[1:] == [0.2, 0.8]


def test_gains_are_paired_by_fact_and_only_of_runs_that_both_have():
    ours = {Place("t", 0): [1.0, 0.0], Place("t", 1): [1.0, 1.0]}
    assert gains(ours, {Place("t", 0): [0.0, 0.0]}) == {Place("t", 0): [1.0, 0.0]}
    # Facts that are equally hard for both leave no width.
    same = {Place("t", 0): [1.0, 0.0] * 20}
    more = {Place("t", 0): [x + 0.25 for x in same[Place("t", 0)]]}
    assert interval(gains(more, same)) == [0.25, 0.25, 0.25]


@pytest.mark.parametrize("family", list(STEPS))
def test_all_ways_of_a_family_make_equal_steps_and_stop_at_the_same_share(family, hub):
    attacks = Attacks(["sst2"], 2)
    made = [recipe(Cell(family, way, "elements", 0), attacks) for way in WAYS]
    assert {r.optim.steps for r in made} == {STEPS[family]}
    assert {r.validation.keep for r in made} == {0.8}
    assert {tuple(r.metrics) for r in made} == {tuple(made[0].metrics)}
    assert {tuple(r.attacks) for r in made} == {("sst2", "half-a", "half-b")}


def test_the_original_is_left_as_it_is_and_attacked_on_the_same_tasks(hub):
    made = recipe(Cell(ORIGINAL, "alone", "elements", 1), Attacks(["sst2"], 2, only_end=True))
    assert made.leaves_the_model
    assert made.keep_attacked
    assert tuple(made.attacks) == ("sst2",)
    alone = recipe(Cell("rmu", "alone", "elements", 1), Attacks(["sst2"], 2, only_end=True))
    assert made.attacks["sst2"] == alone.attacks["sst2"]
    assert made.metrics == alone.metrics


def finished(folder, *, forgotten, after, others=None):
    """A finished run: values of facts for each stage, as a run writes them."""
    out = RunDir(folder)
    out.write("recipe", {"attacks": {}})
    out.write("cost", {"seconds": 1.0, "peak_memory_bytes": 1})
    out.write("environment", {"commit": "abc"})
    out.write("done", {"seconds": 1.0})
    right = {"utility": score([1.0, 1.0]), "utility_generated": score([1.0, 0.0])}
    out.write_scores("before", {FORGET: score([1.0, 1.0, 1.0, 1.0]), **right})
    out.write_scores("after", {FORGET: score(forgotten), **right})
    out.write_scores("sst2-end", {FORGET: score(after), "utility": right["utility"]})
    for part, items in (others or {}).items():
        out.write_scores(f"half-{part}-end", {OTHERS: score(items)})
    return out


def score(items):
    return Score(sum(items) / len(items), 0.0, len(items), items=tuple(items))


def test_the_table_has_intervals_over_facts_and_gains_over_the_way_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "headline", lambda measured: {"worst_usable": None})
    monkeypatch.setattr(table, "read", lambda run: None)
    halves = {"a": [1.0, 0.0], "b": [1.0, 1.0]}
    cells = {
        Cell(ORIGINAL, "alone", "t", 0): finished(
            tmp_path / "original", forgotten=[1.0] * 4, after=[1.0] * 4
        ),
        Cell("rmu", "alone", "t", 0): finished(
            tmp_path / "alone", forgotten=[0.0, 0.0, 0.0, 1.0], after=[0.0, 1.0, 1.0, 1.0],
            others=halves,
        ),
        Cell("rmu", "ilu", "t", 0): finished(
            tmp_path / "ilu", forgotten=[0.0, 0.0, 0.0, 1.0], after=[0.0, 0.0, 0.0, 1.0],
            others=halves,
        ),
    }  # fmt: skip
    rows = [table.row(cell, run, ["sst2"]) for cell, run in cells.items()]
    assert [r["still_forgotten"] for r in rows] == [0.0, 0.25, 0.75]
    assert [r["relearned"] for r in rows] == [None, 0.25, 0.25]
    original, alone, ilu = table.summary(cells, ["sst2"])
    assert original["still_forgotten"] == [0.0, 0.0, 0.0]
    assert "relearned" not in original
    assert ilu["over_alone"][0] == 0.5
    assert ilu["relearned_over_alone"] == [0.0, 0.0, 0.0]
    assert "over_alone" not in alone
    assert ilu["utility_generated"][0] == 0.5


def test_an_interval_without_values_is_an_error():
    for empty in ({}, {Place("t", 0): []}):
        with pytest.raises(ValueError, match="values of every run"):
            interval(empty)
