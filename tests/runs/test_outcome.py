"""What was forgotten, as a share and in a sentence."""

import pytest

from ilu.runs.results.outcome import BOUND, outcome
from ilu.system.scores import Score

RECIPE = {"metrics": {}, "probes": {}}


def scores(name, value, chance=None):
    return {name: Score(value, 0.01, 100, chance=chance)}


def test_the_share_is_of_what_was_known_above_guessing():
    found = outcome(RECIPE, scores("forget_accuracy", 0.85, 0.25), scores("forget_accuracy", 0.55))
    assert found.share == pytest.approx(0.5)
    assert not found.nothing
    assert found.sentence == (
        "questions on what was to be forgotten: 85% answered rightly before, 55% after "
        "(guessing: 25%)"
    )


def test_a_small_loss_of_accuracy_is_nothing():
    found = outcome(RECIPE, scores("forget_accuracy", 0.775, 0.25), scores("forget_accuracy", 0.75))
    assert found.share < BOUND
    assert found.nothing


def test_of_what_was_not_known_before_only_the_loss_says_something():
    before, after = scores("forget_accuracy", 0.26, 0.25), scores("forget_accuracy", 0.1)
    assert outcome(RECIPE, before, after) is None
    rise = (before | scores("forget_nll", 2.0), after | scores("forget_nll", 3.0))
    assert outcome(RECIPE, *rise).share == pytest.approx(0.5)


def test_without_questions_the_loss_decides():
    taught = outcome(RECIPE, scores("forget_nll", 3.07), scores("forget_nll", 2.41))
    assert taught.nothing
    assert "was not measured" in taught.sentence
    assert not outcome(RECIPE, scores("forget_nll", 3.07), scores("forget_nll", 14.6)).nothing


def test_the_change_says_what_the_share_is_of():
    lost = outcome(RECIPE, scores("forget_accuracy", 0.85, 0.25), scores("forget_accuracy", 0.55))
    assert lost.change == "50% of the accuracy above guessing was lost"
    rose = outcome(RECIPE, scores("forget_nll", 2.0), scores("forget_nll", 8.4))
    assert rose.change == "the loss per token rose by 320%"
    fell = outcome(RECIPE, scores("forget_nll", 2.0), scores("forget_nll", 1.0))
    assert fell.change == "the loss per token fell by 50%"


def test_without_either_nothing_is_said():
    assert outcome(RECIPE, scores("utility", 1.0), scores("utility", 1.0)) is None
