"""Layered unlearning: which fold is forgotten and which retained at every stage (2505.09500)."""

import pytest

from ilu.data.splits import Fold
from ilu.methods.forget.npo import NPO
from ilu.methods.retain.likelihood import NLL
from ilu.methods.robust.adversary import TAR
from ilu.recipes.build import build
from ilu.training.objective import weight_of
from ilu.types import Example

SETTINGS = {"model": "lab", "steps": 9, "batch_size": 6, "folds": 3, "fold_gamma": 0.3}


def numbered(count):
    return lambda tokenizer: [Example([i], 0) for i in range(count)]


def test_folds_share_out_the_examples_and_keep_groups_together():
    rows = [[e.ids[0] for e in Fold(numbered(11), i, 3, 2)(None)] for i in range(3)]
    assert rows == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10]]


def test_stage_i_forgets_the_first_i_folds_and_retains_the_later_ones():
    """A second way: the definition, for every fold and step."""
    objective = build("layered", SETTINGS).objective
    for step in range(9):
        stage = step // 3 + 1
        for j in (1, 2, 3):
            on = f"forget fold {j}"
            weights = {NPO: 0.0, NLL: 0.0}
            for name, term in objective.items():
                if term.on == on:
                    weights[type(term.loss)] += weight_of(term, name, {}, step)
            assert weights[NPO] == pytest.approx(1 / 3 if j <= stage else 0)
            assert weights[NLL] == pytest.approx(0.1 if j > stage else 0)
    assert objective["retain"].weight == 3.0  # the default of the lab


def test_every_fold_has_its_part_of_the_batch_and_the_whole_set_stays_known():
    data = build("layered", SETTINGS).data
    assert list(data) == ["forget", "retain", *(f"forget fold {j}" for j in (1, 2, 3))]
    assert {feed.batch_size for name, feed in data.items() if "fold" in name} == {2}
    assert all(
        data[f"forget fold {j + 1}"].source.source == data["forget"].source for j in range(3)
    )


def test_the_adversary_of_a_robust_rule_knows_all_that_is_forgotten():
    objective = build("layered-tar-ilu", {**SETTINGS, "inner_steps": 4}).objective
    assert isinstance(objective["forget"].rule, TAR)
    assert objective["forget"].rule.adversary == "forget"
    assert next(iter(objective)) == "forget"
    assert "invariance" in objective


@pytest.mark.parametrize("wrong", [{"folds": 1}, {"fold_group": 0}])
def test_impossible_folds_are_refused(wrong):
    with pytest.raises(ValueError, match="at least 2 folds"):
        build("layered", {**SETTINGS, **wrong})
