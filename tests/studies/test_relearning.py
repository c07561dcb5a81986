"""The study of relearning: which recipes its short names mean."""

import pytest

from studies.relearning.run import NOISE, cells, recipe_of


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
