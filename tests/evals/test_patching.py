"""Activation patching: what it measures on models whose answer is known, and the suite of it."""

import copy
import json

import pytest
import torch

from ilu.data.stream import collate
from ilu.evals.metrics.patching import (
    Patching,
    depth_scores,
    drops,
    erased,
    patched,
    unlearning_depth,
)
from ilu.evals.score import mean_score
from ilu.models.forward import ModelForward, every_hidden
from ilu.models.load import SecondModel, load_model
from ilu.recipes.suite import suite_of
from ilu.recipes.suite_request import SuiteRequest
from ilu.types import LM, Example
from tests.build import batch, ignore
from tests.conftest import make_tiny


def changed(model, *parts):
    """A copy of a model with other weights in these parts of it."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in parts:
            for p in other.get_submodule(part).parameters():
                p.add_(torch.randn(p.shape, generator=generator) * 0.5)
    return other


@torch.no_grad()
def logp(model, b):
    return ModelForward(model).tokens(b).mean()


@torch.no_grad()
def dropped(model, other, b):
    return drops(model, every_hidden(other, b), b)


def test_a_models_own_states_change_nothing(tiny):
    assert all(not found.any() for found in dropped(tiny, copy.deepcopy(tiny), batch(pad=2)))


def test_the_drop_begins_at_the_block_that_differs(tiny):
    """Two models differ in their last block alone, after which the other's answer is given."""
    b, other = batch(), changed(tiny, "model.layers.1")
    first, last = dropped(tiny, other, b)
    assert not first.any()
    assert torch.allclose(last, logp(tiny, b) - logp(other, b), atol=1e-6)
    assert (last.abs() > 1e-3).all()


def test_after_a_first_block_that_differs_every_block_does(tiny):
    b, other = batch(), changed(tiny, "model.layers.0")
    first, last = dropped(tiny, other, b)
    assert (first.abs() > 1e-3).all()
    assert torch.allclose(last, logp(tiny, b) - logp(other, b), atol=1e-6)


def test_only_positions_that_predict_an_answer_are_replaced(tiny):
    b = ignore(batch(prompt=3), slice(0, 1), slice(3, 6))  # the first row has two answer tokens
    states = [h.clone() for h in every_hidden(changed(tiny, "model.layers.0"), b)]
    with torch.no_grad():
        before = drops(tiny, states, b)
        for h in states:
            h[:, :2] = 100.0  # position 2 predicts the first answer token, at 3
            h[:, -1] = 100.0  # nothing follows the last one
            h[0, 2:5] = 100.0
        assert all(torch.equal(x, y) for x, y in zip(before, drops(tiny, states, b), strict=True))
        for h in states:
            h[:, 5] = 100.0
        after = drops(tiny, states, b)
    assert all((x != y).all() for x, y in zip(before, after, strict=True))


def test_the_model_is_left_as_it_was(tiny):
    b = batch()
    before = logp(tiny, b)
    where = torch.ones_like(b.input_ids, dtype=torch.bool)
    with patched(tiny, 0, torch.zeros(3, 8, 16), where), torch.no_grad():
        assert not every_hidden(tiny, b)[0].any()
    assert torch.equal(before, logp(tiny, b))


def test_a_block_is_weighted_by_its_gap():
    assert [erased(*pair) for pair in ((0.1, 0.2), (0.5, 0.2), (-1.0, 0.2), (0.04, 0.05))] == [
        0.5, 1.0, 0.0, None
    ]  # fmt: skip
    # (.2 * .5 + .1 * 1) / .3; the third block has no gap.
    assert unlearning_depth([0.1, 0.2, 1.0], [0.2, 0.1, 0.04]) == pytest.approx(2 / 3)
    assert unlearning_depth([1.0], [0.05]) is None
    assert unlearning_depth([3.0, 5.0], [1.0, 1.0]) == 1


def scores(*rows):
    """``drop_block_l`` with these items."""
    return {f"drop_block_{layer}": mean_score(row) for layer, row in enumerate(rows)}


def test_scores_are_means_over_the_answers_with_a_gap():
    never = scores([0.0, 0.2, 0.0], [0.4, 0.1, 0.0])
    found = depth_scores(scores([9.0, 0.1, 9.0], [0.1, 0.2, 9.0]), never)
    assert found["depth"].items == pytest.approx((0.25, 2 / 3, None))
    assert (found["depth"].n, found["depth"].unscored) == (2, 1)
    assert found["erased_block_0"].items == (None, 0.5, None)
    assert found["erased_block_1"].items == (0.25, 1.0, None)
    assert depth_scores(never, never)["depth"].value == 1
    nothing = scores([0.0, 0.0, 0.0], [0.0, 0.0, 0.0])
    assert depth_scores(nothing, never)["depth"].value == 0
    with pytest.warns(UserWarning, match="know the answers alike"):
        assert depth_scores(never, nothing) == {}


class Texts:
    """Examples of several lengths, the last with an end that is no word of the answer."""

    def __call__(self, tokenizer):
        rows = [Example([3, 4, 5, 6, 7], 2), Example([8, 9, 10], 1), Example([3, 5, 7, 9], 2)]
        return [*rows, Example([5, 6, 7, 8, 9, 10, 11], 3, end=1)]


@pytest.fixture
def original(tmp_path):
    """A saved model, and one that differs from it."""
    lm = load_model("lab")
    model = make_tiny(len(lm.tokenizer))
    model.save_pretrained(tmp_path / "original")
    lm.tokenizer.save_pretrained(tmp_path / "original")
    return tmp_path / "original", LM(changed(model, "model.layers.0"), lm.tokenizer)


def test_padding_and_the_end_of_an_answer_do_not_count(original):
    folder, lm = original
    together, alone = (
        Patching(Texts(), SecondModel(str(folder)), batch_size=n)(lm) for n in (4, 1)
    )
    assert list(together) == ["drop_block_0", "drop_block_1"]
    for name, score in together.items():
        assert score.items == pytest.approx(alone[name].items, abs=1e-5)
    model = load_model(str(folder)).model
    last = collate([Example([5, 6, 7, 8, 9, 10], 3)])
    by_hand = logp(model, last) - logp(lm.model, last)
    assert together["drop_block_1"].items[-1] == pytest.approx(by_hand.item(), abs=1e-5)


def test_models_that_do_not_fit_are_refused(original, tiny):
    folder, lm = original
    with pytest.raises(ValueError, match=r"`original` .* has 2 blocks of width 16, the measured"):
        Patching(Texts(), SecondModel(str(folder)))(load_model("lab"))

    class Words:
        def __call__(self, tokenizer):
            return [Example(list(tokenizer("Arando is old").input_ids), 1)]

    class Other:
        """A tokenizer with other ids."""

        def __call__(self, text):
            return type("Encoded", (), {"input_ids": [1, 2, 3]})

    with pytest.raises(ValueError, match="reads the texts as other tokens"):
        Patching(Words(), SecondModel(str(folder)))(LM(lm.model, Other()))


def test_a_model_that_never_knew_drops_where_the_lab_knows():
    suite = suite_of("depth", SuiteRequest(limit=8))
    own, never = (suite(load_model(name)) for name in ("lab", "lab-never"))
    assert all(score.value == pytest.approx(0, abs=1e-5) for score in own.values())
    assert max(score.value for score in never.values()) > 0.5
    assert suite.compared(own, never)["depth"].value == pytest.approx(0, abs=1e-4)
    assert suite.compared(never, never)["depth"].value == 1


def test_facts_and_files_are_texts_of_the_suite(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "Who is it?", "answer": "me"}\n')
    for data in ("facts:elements", str(rows)):
        part = suite_of("depth", SuiteRequest(data=data, original="lab", limit=3)).parts["patching"]
        examples = part.source(load_model("lab").tokenizer)
        assert 1 <= len(examples) <= 3
        assert all(0 < example.prompt < len(example.ids) for example in examples)


@pytest.mark.parametrize(
    ("name", "request_of_it", "message"),
    [
        ("depth", {"data": "d.jsonl"}, "needs the model before unlearning: set `original`"),
        ("depth", {"truncate": 8}, "`truncate` is for a file or a hub dataset"),
        ("lab", {"original": "lab"}, "the suite lab reads one model: `original` is for depth"),
    ],
)
def test_what_the_suite_lacks_is_said(name, request_of_it, message):
    with pytest.raises(ValueError, match=message):
        suite_of(name, SuiteRequest(**request_of_it))


def test_the_command_scores_blocks_and_depth(ilu, tmp_path):
    done = ilu("evaluate", "lab", "--suite", "depth", "--limit", "6", "--original", "lab",
               "--reference", "lab-never", "--out", "depth.json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "depth.json").read_text())["models"]["lab"]
    assert found["depth"]["value"] == pytest.approx(0, abs=1e-4)
    assert "erased_block_0" in found or "erased_block_1" in found
    assert found["drop_block_0"]["n"] == 6


def test_a_landscape_compares_its_points_with_the_original_of_the_command(ilu, tmp_path):
    done = ilu("landscape", "lab", "lab-never", "--suite", "depth", "--limit", "3", "--points", "2",
               "--out", "points.json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    points = json.loads((tmp_path / "points.json").read_text())["points"]
    never, known = (abs(point["scores"]["drop_block_5"]["value"]) for point in points)
    assert known < 0.1 < 1 < never
