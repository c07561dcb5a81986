"""The intervals of the study on a real model, and that its ways are comparable."""

import pytest

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
