"""Multiple choice: what is read off a model, what is counted, and two models compared."""

import pytest
import torch
from scipy.stats import binom

from ilu.data.stream import collate
from ilu.evals.metrics import multiple_choice, option_rows
from ilu.evals.metrics.mcnemar import mcnemar
from ilu.evals.metrics.multiple_choice import (
    Choice,
    ChoiceReport,
    accuracy,
    batches,
    option_logps,
    per_character,
    picked,
    picks,
)
from ilu.evals.metrics.option_rows import OptionInRow
from ilu.evals.score import mean_score
from ilu.models.forward import ModelForward
from ilu.models.lm_head import logits_at, takes_positions
from ilu.models.token_math import sequence_nll
from ilu.system.scores import Score
from ilu.types import LM, Example, Question
from tests.close import ROUNDING
from tests.methods.test_math import Words


def of(*items: float | None) -> Score:
    return mean_score(items)


class Deaf(torch.nn.Module):
    """A causal LM that knows no ``logits_to_keep``."""

    def __init__(self, model: torch.nn.Module, *, silent: bool = False):
        super().__init__()
        self.inner, self.config, self.silent = model, model.config, silent

    def forward(self, input_ids, attention_mask, use_cache=False, **rest):
        if rest and not self.silent:
            raise TypeError("unexpected keyword argument")
        return self.inner(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache)


def test_only_the_positions_asked_for_go_through_the_output_layer(tiny):
    seen = []
    tiny.lm_head.register_forward_hook(lambda m, x, y: seen.append(y.shape[:2]))
    asked = [Question("1 2 3", (" 4", " 5"), 0), Question("9 8 7 6 5 4", (" 3", " 2"), 1)]
    option_logps(LM(tiny, Words()), asked, batch_size=2)
    assert seen[-1] == (2, 1)


def test_a_model_that_gives_no_number_is_no_model_that_answers_a(tiny):
    asked = [Question("1 2 3", (" 4", " 5"), 0)]
    tiny.lm_head.weight.data[0] = torch.nan
    with pytest.raises(ValueError, match="not a number: is the model damaged"):
        Choice(lambda: asked)(LM(tiny, Words()))


@pytest.mark.parametrize("silent", [False, True])
def test_models_that_keep_all_positions_give_the_same(tiny, silent):
    deaf = Deaf(tiny, silent=silent)
    assert takes_positions(tiny)
    assert not takes_positions(deaf)
    asked = [
        Question("1 2 3", (" 4", " 5", " 6 7", " 6 8"), 0),
        Question("9 8 7 6 5 4", (" 3", " 2 1"), 1),
    ]
    ours, theirs = (option_logps(LM(m, Words()), asked, batch_size=3) for m in (tiny, deaf))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_positions_of_each_row_are_its_own(tiny):
    batch = collate([Example([1, 2, 3], 0), Example([4, 5, 6], 0)])
    positions = torch.tensor([[2, 0], [1, 1]])
    whole = tiny(batch.input_ids).logits
    for only in (False, True):
        found = logits_at(tiny, batch, positions, only=only)
        torch.testing.assert_close(found[0], whole[0, [2, 0]])
        torch.testing.assert_close(found[1], whole[1, [1, 1]])


def test_a_question_may_fill_the_context_and_is_never_cut(tiny):
    full = Question(" ".join(["3"] * 64), (" 4", " 5"), 0)
    longer = full._replace(prompt="3 " + full.prompt)
    with pytest.warns(UserWarning, match="1 of 2 contexts are longer than the model's 64 tokens"):
        fits, cannot = option_logps(LM(tiny, Words()), [full, longer], batch_size=2)
    assert None not in fits
    assert cannot == [None, None]


def test_options_with_contexts_of_their_own_are_scored_after_them(tiny):
    question = Question("", (" 7 8", " 7 8"), 1, ("1 2 3", "1 2 4"))
    ((first, second),) = option_logps(LM(tiny, Words()), [question], batch_size=2)
    for value, head in ((first, [1, 2, 3]), (second, [1, 2, 4])):
        out = ModelForward(tiny)(collate([Example([*head, 7, 8], 3)]))
        assert value == pytest.approx(-sequence_nll(out.logits, out.targets).item(), rel=ROUNDING)
    assert first != second


OPTIONS = (" 4 6", " 5", " 6 7 8", " 6 7 9")


def test_a_prompt_is_read_once_for_all_of_its_options(tiny, monkeypatch):
    asked = [
        Question("1 2 3 1 2 3", OPTIONS, 0),
        Question("9 8 7 6", OPTIONS, 1),
        Question("", (" 7 8", " 7 8"), 1, ("1 2 3", "2 2 4")),
    ]
    read = []
    watched = tiny.register_forward_pre_hook(
        lambda m, given, more: read.append(more["input_ids"].numel()), with_kwargs=True
    )
    assert option_rows.reads_branches(tiny, 9)
    read.clear()
    ours = option_logps(LM(tiny, Words()), asked, batch_size=8)
    # Six of a prompt, or four, two for " 6 7" and one for " 4"; of the last two contexts the first
    # has three tokens of the first prompt.
    assert max(read) == (6 + 3) + (4 + 3) + 1 + 4
    watched.remove()
    monkeypatch.setattr(multiple_choice, "reads_branches", lambda model, longest: False)
    separate = option_logps(LM(tiny, Words()), asked, batch_size=8)
    for one, other in zip(ours, separate, strict=True):
        torch.testing.assert_close(one, other)


def test_branches_see_the_prompt_and_themselves_alone():
    contexts = [((5, 6, 1), [OptionInRow(0, 0, (1, 2))]), ((5, 6, 3), [OptionInRow(0, 1, (3, 4))])]
    (row,) = option_rows.rows(contexts, shared=True)
    assert (row.ids, row.ends, row.positions) == ((5, 6, 1, 3), (4, 4, 3, 4), (0, 1, 2, 2))
    assert [option.places for option in row.options] == [(1, 2), (1, 3)]
    seen = option_rows.visible(torch.tensor([[*row.ends, 5]]))[0, 0].int().tolist()
    assert seen == [
        [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 0, 1, 0], [0, 0, 0, 0, 1],
    ]  # fmt: skip


def test_questions_with_the_same_beginning_share_a_row(tiny, monkeypatch):
    """The three first share four tokens; the fourth shares none and is in the same row."""
    asked = [
        *(Question(f"1 2 3 4 {k} 6", OPTIONS, 0) for k in (7, 8, 9)),
        Question("9 8 7 6 5", OPTIONS, 1),
    ]
    contexts = list(multiple_choice.contexts_of(Words(), asked).items())
    (made,) = option_rows.rows(contexts, shared=True, size=8)
    assert len(made.ids) == 4 + 3 * (2 + 3) + (5 + 3)
    assert max(len(row.ids) for row in option_rows.rows(contexts, shared=True)) <= 2 * 8
    assert option_rows.reads_branches(tiny, 9)
    ours = option_logps(LM(tiny, Words()), asked, batch_size=8)
    monkeypatch.setattr(multiple_choice, "reads_branches", lambda model, longest: False)
    separate = option_logps(LM(tiny, Words()), asked, batch_size=8)
    for one, other in zip(ours, separate, strict=True):
        torch.testing.assert_close(one, other)


def test_a_row_of_several_questions_has_no_more_tokens_and_logits_than_its_batch():
    contexts = [
        ((*[7] * 10, i, k), [OptionInRow(i, k, (k, 1))]) for i in range(40) for k in range(4)
    ]  # fmt: skip
    made = option_rows.rows(contexts, shared=True, size=8)
    assert max(len(row.ids) for row in made) <= 8 * 12
    assert max(len(row.places) for row in made) <= 8 * 2
    many = option_rows.rows(contexts, shared=True, size=1000)
    assert max(len(row.ids) for row in many) <= option_rows.MOST
    assert sum(len(row.options) for row in many) == 160


def test_models_whose_attention_has_a_window_read_every_context(tiny):
    tiny.config.sliding_window = 8
    assert option_rows.reads_branches(tiny, 8)
    assert not option_rows.reads_branches(tiny, 9)


def test_models_without_positions_read_every_context(tiny):
    assert not option_rows.reads_branches(Deaf(tiny), 3)


def test_a_batch_has_no_more_tokens_than_its_contexts_would_have():
    contexts = [
        ((*[7] * 10, k), [OptionInRow(i, k, (k, 1))]) for i in range(9) for k in range(4)
    ]  # fmt: skip
    made = option_rows.rows([((i, *ids), o) for i, (ids, o) in enumerate(contexts)], shared=False)
    assert [len(b) for b in batches(made, 16)] == [16, 16, 4]
    own = [((o[0].question, *ids), o) for ids, o in contexts]
    assert [len(row.ids) for row in option_rows.rows(own, shared=True)] == [15] * 9
    shared = option_rows.rows(own, shared=True, size=8)
    # 8 contexts of 12 tokens have 96 tokens and 16 logits: 3 questions have 45 and 15.
    assert [len(row.ids) for row in shared] == [45] * 3
    assert [len(b) for b in batches(shared, 8)] == [1, 1, 1]


def test_what_has_no_token_or_no_answer_cannot_be_scored(tiny):
    asked = [
        Question("1 2 3", (" 4", ""), 0),
        Question("1 2 3", (" 4", " 5"), None),
        Question("", (" 4", " 5"), 0),
        Question("1 2 3", (" 4", " 5"), 1),
    ]
    with pytest.warns(UserWarning, match="an option or a prompt without a token, the first is"):
        score = Choice(lambda: asked)(LM(tiny, Words()))
    assert score.items[:3] == (None, None, None)
    assert (score.n, score.unscored) == (1, 3)


def test_accuracy_with_and_without_length_by_hand():
    """Of " yes" at -3 and " certainly" at -4 the first is likelier, and the second per letter."""
    asked = [Question("", (" yes", " certainly"), 1)]
    logps = [[-3.0, -4.0]]
    assert per_character(logps, asked) == [[-1.0, pytest.approx(-4 / 9)]]
    assert accuracy(picked(logps), asked).value == 0
    assert accuracy(picked(per_character(logps, asked)), asked).value == 1
    assert picked([[-1.0, -1.0], [None, -1.0]]) == [0, None]


def test_shares_of_the_options_taken():
    asked = [Question("", (" A", " B"), 0)] * 4
    found = picks([1, 1, 0, None], asked)
    assert {k: s.value for k, s in found.items()} == {"A": 1 / 3, "B": 2 / 3}
    assert found["A"].items == (0.0, 0.0, 1.0, None)
    many = [Question("", (f" {i}", f" {i + 1}"), 0) for i in range(10)]
    assert picks([0] * 10, many) == {}
    cloze = [Question(p, (f" {p} once", f" {p} never"), 0) for p in "xyz"]  # 6 texts in all
    assert picks([0, 1, 0], cloze) == {}
    assert picks([0], asked[:1]) == {}
    names = [Question(p, (" Mara Quill", " Ole Brandt"), 0) for p in "xyz"]  # somebody's data
    assert picks([0, 1, 0], names) == {}


def test_a_report_has_the_accuracy_of_choice_and_the_letters(tiny):
    lm = LM(tiny, Words())
    asked = [Question(f"1 2 {i}", (" 4", " 5", " 6"), i % 3) for i in range(9)]
    found = ChoiceReport("x", lambda: asked)(lm)
    assert found["x_acc"] == Choice(lambda: asked)(lm)
    assert sorted(found) == ["x_acc", "x_picks_4", "x_picks_5", "x_picks_6"]
    assert sum(found[f"x_picks_{k}"].value for k in (4, 5, 6)) == pytest.approx(1)
    longer = [Question("1 2", (" 4", " 5 6"), 0)]
    assert "x_acc_norm" in ChoiceReport("x", lambda: longer)(lm)


def test_mcnemar_is_the_binomial_test_of_the_flips():
    first, second = of(1, 1, 1, 1, 1, 1, 0, 0, None), of(0, 0, 0, 0, 0, 1, 1, 0, 1)
    flips = mcnemar(first, second)
    assert flips[:2] == (5, 1)
    # 5 or more of 6 at even odds, on both sides: 2 (6 + 1) / 64.
    assert flips.p == pytest.approx(14 / 64)
    assert flips.p == pytest.approx(2 * binom.cdf(1, 6, 0.5))
    assert mcnemar(second, first) == (1, 5, pytest.approx(14 / 64))
    assert mcnemar(first, first) == (0, 0, 1.0)
    with pytest.raises(ValueError, match=r"not 0.5"):
        mcnemar(of(0.5, 1), of(1, 1))
    with pytest.raises(ValueError, match="2 and 1 items cannot be paired"):
        mcnemar(of(1, 1), of(1))
