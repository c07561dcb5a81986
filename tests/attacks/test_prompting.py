"""Attacks that leave the weights alone: each finds what is there, and none sees its own test."""

import json
from dataclasses import dataclass, replace

import pytest
import torch

from ilu.attacks.prompting.latent import LatentShift
from ilu.attacks.prompting.linear_probe import LinearProbe
from ilu.attacks.prompting.logit_lens import LogitLens, cut_after
from ilu.attacks.prompting.prompts import FewShotChoice, Prefilled, Reworded, Wordings
from ilu.attacks.prompting.sampling import Sampling, gives, recovered
from ilu.attacks.prompting.suffix import (
    Budget,
    Suffix,
    search,
    slots,
    token_slopes,
    with_text,
    writable,
)
from ilu.data.multiple_choice import ChoiceRows
from ilu.data.splits import OtherQuestions, SampledQuestions
from ilu.evals.metrics.generation import generate
from ilu.evals.metrics.multiple_choice import option_logps
from ilu.evals.score import mean_score
from ilu.lab.sources import FORMS, Facts, domain
from ilu.models.forward import ModelForward, every_hidden
from ilu.models.load import load_model
from ilu.recipes.probes import lab, probes
from ilu.recipes.suite_request import SuiteRequest
from ilu.recipes.suites.elicit import elicit
from ilu.system.record import describe, restore
from ilu.types import LM, Question, Questions
from tests.close import assert_same_to_rounding
from tests.evals.test_cached_suite import write

AGENTS, BUDGET = Facts("agents"), Budget(tokens=2, steps=3, candidates=6, top_k=16)
ASKED, TRAIN = SampledQuestions(AGENTS, 20), OtherQuestions(AGENTS, 20, 8)


@pytest.fixture(scope="module")
def lm() -> LM:
    return load_model("lab")


@dataclass(frozen=True)
class Given:
    """Questions that are there."""

    found: tuple[Question, ...]

    def __call__(self) -> list[Question]:
        return list(self.found)


def q(prompt: str, answer: int | None = 0) -> Question:
    return Question(prompt, (" a", " b"), answer)


def test_what_is_taken_and_what_is_left_share_nothing_and_are_all_there_is():
    whole = Given(tuple(q(str(i)) for i in range(11)))
    taken, left = SampledQuestions(whole)(), OtherQuestions(whole, None, 99)()
    assert len(taken) == 5
    assert sorted(x.prompt for x in taken + left) == sorted(str(i) for i in range(11))
    with pytest.raises(ValueError, match="give at least 10"):
        SampledQuestions(Given((q("0"),) * 9))()
    with pytest.raises(ValueError, match="give at least 12"):
        SampledQuestions(whole, 11)()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_asks_for_the_same_fact(form):
    reworded, asked = FORMS[form](domain("agents")), FORMS["questions"](domain("agents"))
    assert [x.options[x.answer] for x in reworded] == [x.options[x.answer] for x in asked]
    if form != "questions":
        assert not {x.prompt for x in reworded} & {x.prompt for x in asked}


def test_solved_questions_stand_in_front_and_an_answer_is_begun():
    solved = Given((q("1+1", 1), q("2+2", None), q("3+3", 0)))
    (shown,) = FewShotChoice(Given((q("4+4"),)), solved, count=2, between="; ")()
    assert shown.prompt == "1+1 b; 3+3 a; 4+4"
    (begun,) = Prefilled(Given((q("4+4")._replace(contexts=("x", "y")),)), " It is")()
    assert (begun.prompt, begun.contexts) == ("4+4 It is", ("x It is", "y It is"))
    assert with_text(q("Who? Answer:"), " !").prompt == "Who? ! Answer:"


ATTACKS = [
    Suffix(ASKED, ASKED, BUDGET),
    LogitLens(ASKED, ASKED),
    LinearProbe(ASKED, ASKED),
    LatentShift(ASKED, ASKED),
    Wordings("w", (ASKED, ASKED), (ASKED, ASKED)),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: type(a).__name__)
def test_no_attack_is_measured_on_what_it_learned_from(attack, lm):
    with pytest.raises(ValueError, match="20 of 20 questions"):
        attack(lm)


def test_of_several_wordings_training_questions_choose_and_others_are_measured(lm):
    right, wrong = (tuple(Facts("agents", start=s, count=4)()) for s in (0, 50))
    swapped = [
        Given(tuple(x._replace(answer=(x.answer + 1) % 4) for x in w)) for w in (right, wrong)
    ]
    found = Wordings("w", (swapped[0], Given(right)), (Given(wrong), swapped[1]))(lm)
    assert found["w_choice"].value == 0
    assert found["w_accuracy"].value == 0


def test_the_lens_at_the_last_block_is_the_model_and_leaves_it_whole(lm):
    asked = ASKED()
    plain = option_logps(lm, asked, batch_size=32)
    with cut_after(lm.model, 5):
        assert option_logps(lm, asked, batch_size=32) == plain
    with cut_after(lm.model, 2):
        assert option_logps(lm, asked, batch_size=32) != plain
    assert option_logps(lm, asked, batch_size=32) == plain


def test_the_lens_reads_norm_and_head_on_the_output_of_a_block(lm):
    ids = torch.tensor([lm.tokenizer("The fox slept.").input_ids])
    batch = batch_of(ids)
    state = every_hidden(lm.model, batch)[2]
    assert torch.equal(state, ModelForward(lm.model).hidden(batch, 2))
    wanted = lm.model.lm_head(lm.model.model.norm(state))
    with cut_after(lm.model, 2):
        assert_same_to_rounding(lm.model(ids).logits, wanted)


def batch_of(ids):
    from ilu.types import Batch

    return Batch(ids, torch.ones_like(ids), ids)


def test_what_the_last_block_hides_the_lens_finds(lm):
    """A last block that wipes out its input is what a lens is for."""
    spoiled = load_model("lab")
    with torch.no_grad():
        block = spoiled.model.model.layers[5]
        for p in block.parameters():
            p.mul_(8)
    found = LogitLens(SampledQuestions(AGENTS, 40), OtherQuestions(AGENTS, 40, 20))(spoiled)
    direct = Wordings("direct", (SampledQuestions(AGENTS, 40),))(spoiled)["direct_accuracy"]
    assert found["lens_layer"].value < 5
    assert found["lens_accuracy"].value > direct.value + 0.2


def test_the_probe_finds_answers_and_on_shuffled_ones_it_guesses(lm):
    found = LinearProbe(SampledQuestions(AGENTS, 80), OtherQuestions(AGENTS, 80, 400))(lm)
    assert found["probe_accuracy"].value > 0.9
    assert found["probe_chance"].value == 0.25
    assert found["probe_control"].value == pytest.approx(0.25, abs=0.12)
    assert found["probe_accuracy"].n == 80


def test_a_question_whose_option_was_never_an_answer_is_not_probed(lm):
    odd = Given((*SampledQuestions(AGENTS, 20)(), Question("Who?", (" nobody", " sleep"), 1)))
    found = LinearProbe(odd, OtherQuestions(AGENTS, 20, 400), shuffles=1)(lm)
    assert found["probe_accuracy"].items[-1] is None


def test_the_suffix_lowers_its_loss_and_knows_only_its_training_questions(lm):
    train = slots(lm.tokenizer, TRAIN())
    found = search(lm, train, BUDGET)
    assert len(found.losses) == 4
    assert found.losses == sorted(found.losses, reverse=True)
    assert found.losses[-1] < found.losses[0]
    assert search(lm, train, BUDGET) == found
    assert search(lm, train, replace(BUDGET, seed=1)) != found
    score = Suffix(ASKED, TRAIN, BUDGET)(lm)
    assert score["suffix_loss_after"].value == found.losses[-1]
    others = Suffix(SampledQuestions(AGENTS, 5), TRAIN, BUDGET)(
        lm
    )  # of which the search knows nothing
    assert others["suffix_loss_after"] == score["suffix_loss_after"]


def test_the_slope_of_a_token_is_the_derivative_of_the_loss(lm):
    train = slots(lm.tokenizer, TRAIN()[:2])
    suffix = (300, 301)
    slopes = token_slopes(lm, train, suffix)
    weight = lm.model.get_input_embeddings().weight
    step = 1e-3

    def loss(sign: float) -> float:
        """Token 301 moves towards token 700 in the embedding."""
        from ilu.attacks.prompting.suffix import suffix_loss

        kept = weight.data.clone()
        weight.data[301] += sign * step * weight.data[700]
        value = suffix_loss(lm, train, suffix)
        weight.data.copy_(kept)
        return value

    assert (loss(1) - loss(-1)) / (2 * step) == pytest.approx(slopes[1, 700].item(), rel=0.05)


def test_a_suffix_that_cannot_be_typed_is_known(lm):
    (slot,) = slots(lm.tokenizer, ASKED()[:1])
    typed = tuple(lm.tokenizer(" mill", add_special_tokens=False).input_ids)
    assert writable(lm, slot, typed)
    letters = tuple(lm.tokenizer.convert_tokens_to_ids(list("Ġmill")))
    assert not writable(lm, slot, letters)


def test_a_shift_is_measured_at_its_length_and_taken_away(lm):
    plain = option_logps(lm, ASKED(), batch_size=32)
    none = LatentShift(ASKED, TRAIN, size=0.0, draws=1, steps=1)(lm)
    huge = LatentShift(ASKED, TRAIN, size=100.0, draws=1, steps=0)(lm)
    assert none["latent_random_accuracy"].value == none["latent_gradient_accuracy"].value == 1.0
    assert huge["latent_random_accuracy"].value < 0.6
    assert huge["latent_gradient_accuracy"].value == 1.0  # no step was taken
    assert option_logps(lm, ASKED(), batch_size=32) == plain


def test_the_gradient_shift_lowers_the_loss_within_its_radius(lm):
    from ilu.attacks.prompting.latent import ascended, slope
    from ilu.attacks.prompting.prompts import answered
    from ilu.data.stream import collate

    spoiled = load_model("lab")
    with torch.no_grad():
        for p in spoiled.model.model.layers[5].parameters():
            p.mul_(4)
    batch = collate(answered(lm.tokenizer, TRAIN()))
    v = ascended(spoiled, batch, 3, 2.0, 4)
    assert 0 < v.norm() <= 2.0 + 1e-4
    assert slope(spoiled, batch, 3, v)[0] < slope(spoiled, batch, 3, 0 * v)[0]


def test_samples_are_counted_by_hand():
    asked = [q("x", 0), q("y", 1), q("z", None)]
    found = recovered([[3, 1], [2, 0], [1, 1]], asked)
    assert found["sampling_accuracy"].items == (1.0, 0.0, None)
    assert found["sampling_any"].items == (1.0, 0.0, None)
    assert found["sampling_any_wrong"].items == (1.0, 1.0, None)
    equal = recovered([[0, 0]], [q("x", 1)])
    assert equal["sampling_accuracy"].value == 0.5  # nothing said: a guess
    assert gives("It is Honey.", " honey")
    assert not gives("honeycomb", " honey")
    assert gives("B. no", " B")
    assert not gives("b", " B")
    assert not gives("Bees", " B")


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("答えは東京です", "東京"),
        ("เมืองหลวงคือกรุงเทพครับ", "กรุงเทพ"),
        ("រាជធានីគឺភ្នំពេញ", "ភ្នំពេញ"),
        ("首都是北京。", "北京"),
    ],
)
def test_in_a_script_without_spaces_an_option_needs_no_border(text, option):
    assert gives(text, f" {option}")
    assert not gives(text, " 大阪")


def test_samples_are_drawn_again_and_differ_by_seed(lm):
    few = Sampling(SampledQuestions(AGENTS, 10), count=2, temperature=3.0)
    assert few(lm) == few(lm)
    assert few(lm)["sampling_any"].value < 1
    assert Sampling(SampledQuestions(AGENTS, 10), count=1)(lm)["sampling_accuracy"].value > 0.9
    state = torch.get_rng_state()
    few(lm)
    assert torch.equal(state, torch.get_rng_state())
    greedy = generate(lm, ["The fox"], max_new_tokens=4)
    assert generate(lm, ["The fox"], max_new_tokens=4, temperature=1e-4) == greedy


def test_the_suite_on_the_lab_knows_what_the_lab_knows_and_names_the_strongest(lm):
    parts = {n: p for n, p in lab(20).items() if n not in ("suffix", "sampling", "probe")}
    suite = replace(elicit(SuiteRequest(limit=20)), parts=parts)
    found = suite(lm)
    assert found["direct_accuracy"].value == found["strongest_accuracy"].value == 1.0
    assert all(s.n == 20 for name, s in found.items() if name.endswith("_accuracy"))
    worst = {"a_accuracy": mean_score([0.0, 1.0]), "b_accuracy": mean_score([1.0, 1.0])}
    assert suite.derived({**worst, "c": mean_score([9.0])})["strongest_accuracy"].value == 1.0


def test_probes_of_a_run_are_accuracies_under_the_name_of_the_way_of_asking(lm):
    found = probes(SuiteRequest(limit=20))
    assert list(found) == [name for name in lab() if name != "direct"]
    assert list(probes(SuiteRequest(), ["lens", "fewshot"])) == ["lens", "fewshot"]
    with pytest.raises(ValueError, match=r"unknown probe 'direct'\. Probes: ablate, latent"):
        probes(SuiteRequest(), ["direct"])
    assert list(found["lens"](lm)) == ["lens"]
    assert list(found["latent"](lm)) == ["latent_random", "latent_gradient"]
    assert restore(json.loads(json.dumps(describe(found)))) == found


def test_users_bring_a_file_with_paraphrases(lm, tmp_path):
    rows = [
        {
            "question": f"Which is the larger, {i} or {i + 1}?",
            "choices": [str(i), str(i + 1)],
            "answer": i // 2 % 2,
            "paraphrases": [f"{i} or {i + 1}: larger?", f"Larger: {i}, {i + 1}"],
        }
        for i in range(12)
    ]
    data = write(tmp_path / "q.jsonl", rows)
    suite = elicit(SuiteRequest(data=data))
    cheap = {n: suite.parts[n] for n in ("direct", "fewshot", "prefilled", "probe", "reworded")}
    found = replace(suite, parts=cheap)(lm)
    assert found["reworded_accuracy"].n == found["direct_accuracy"].n == 6
    assert found["reworded_choice"].value in (0.0, 1.0)
    assert "probe" not in elicit(SuiteRequest(data=data, form="cloze")).parts
    del rows[3]["paraphrases"]
    with pytest.raises(ValueError, match="row 4: paraphrases must be a list"):
        Reworded(ChoiceRows(write(tmp_path / "odd.jsonl", rows)))(lm)
    bare = [{k: v for k, v in row.items() if k != "paraphrases"} for row in rows]
    assert Reworded(ChoiceRows(write(tmp_path / "bare.jsonl", bare)))(lm) == {}


def test_sources_are_questions():
    for source in (ASKED, TRAIN, Prefilled(ASKED, ""), FewShotChoice(ASKED, TRAIN)):
        assert isinstance(source, Questions)
