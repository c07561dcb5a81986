"""Metrics on fixed numbers, against values derived by hand and second implementations."""

import math
import random
import statistics

import pytest
import torch

from ilu.data.counterparts import REFUSALS
from ilu.evals.metrics.answer_logprobs import AnswerTokens, read_answers, words_of
from ilu.evals.metrics.memorisation import exact_memorisation, extraction_strength, probability
from ilu.evals.metrics.muse import (
    MinK,
    before_next_question,
    membership_auc,
    privleak,
    share_of,
    utility_kept,
)
from ilu.evals.metrics.refusal import refuses
from ilu.evals.metrics.rouge import bleu, rouge_l
from ilu.evals.metrics.tofu import (
    Answers,
    among,
    answer_alone,
    closeness,
    forget_quality,
    model_utility,
    preference,
    truth_ratio_arithmetic,
    truth_ratio_geometric,
)
from ilu.evals.score import mean_score
from ilu.models.lm_head import head_of
from ilu.models.load import load_model
from ilu.types import LM, Example
from tests.close import assert_same_to_rounding
from tests.conftest import make_tiny

LOG = math.log


def test_probability_is_the_geometric_mean_of_the_tokens():
    assert probability(torch.tensor([0.5, 0.125]).log()) == pytest.approx(0.25)
    assert probability(torch.zeros(0)) is None


@pytest.mark.parametrize(
    ("first", "strength", "share"),
    [
        ([1, 0, 1, 1], 0.5, 0.75),
        ([1, 1, 1, 1], 1.0, 1.0),
        ([1, 1, 1, 0], 0.0, 0.75),
        ([0], 0.0, 0.0),  # open-unlearning: 1
        ([1], 1.0, 1.0),
        ([], None, None),
    ],
)
def test_extraction_strength_and_exact_memorisation(first, strength, share):
    hits = torch.tensor(first, dtype=torch.bool)
    assert extraction_strength(hits) == strength
    assert exact_memorisation(hits) == share


def test_truth_ratios_by_hand():
    right, wrong = LOG(0.2), [LOG(0.1), LOG(0.4)]
    assert truth_ratio_arithmetic(right, wrong) == pytest.approx((0.1 + 0.4) / 2 / 0.2)
    assert truth_ratio_geometric(right, wrong) == pytest.approx(math.sqrt(0.1 * 0.4) / 0.2)
    assert among(LOG(0.5), [LOG(0.25), LOG(0.25)]) == pytest.approx(0.5)
    assert answer_alone(LOG(0.5), [LOG(0.25)]) == pytest.approx(0.5)
    assert (closeness(4.0), closeness(0.25), closeness(0.0)) == (0.25, 0.25, 0.0)
    assert (preference(0.25), preference(3.0)) == (0.75, 0.0)
    assert math.isfinite(truth_ratio_geometric(-2000.0, [0.0]))


def nine(value: float = 0.5) -> dict:
    return {
        f"{s}_{m}": mean_score([value - 0.1, value + 0.1, value])
        for s in ("retain", "real_authors", "world_facts")
        for m in ("probability", "rouge", "truth")
    }


def test_model_utility_is_the_harmonic_mean_of_nine():
    scores = {**nine(), "retain_rouge": mean_score([0.2, 0.2, 0.2])}
    assert model_utility(scores)["model_utility"].value == pytest.approx(9 / (8 / 0.5 + 1 / 0.2))
    assert model_utility({**nine(), "retain_rouge": mean_score([0.0])})["model_utility"].value == 0
    assert model_utility({"retain_rouge": mean_score([0.5])}) == {}


def test_the_error_of_model_utility_knows_that_metrics_share_their_questions():
    """Perfectly correlated within a set: the error is that of a mean of three sets."""
    error = model_utility(nine())["model_utility"].stderr
    alone_error = nine()["retain_truth"].stderr
    assert error == pytest.approx(alone_error / math.sqrt(3))
    flipped = {**nine(), "retain_truth": mean_score([0.6, 0.4, 0.5])}
    assert model_utility(flipped)["model_utility"].stderr < error


def ratios(values) -> dict:
    return {"forget_truth_ratio": mean_score(values)}


def test_forget_quality_is_the_ks_p_value():
    """Of the C(8, 4) orders of eight values two keep the samples apart: p = 2 / 70."""
    model, oracle = [0.1, 0.2, 0.3, 0.4], [1.1, 1.2, 1.3, 1.4]
    found = forget_quality(ratios(model), ratios(oracle))
    assert found["forget_quality"].value == pytest.approx(2 / 70)
    assert found["forget_quality_log10"].value == pytest.approx(math.log10(2 / 70))
    assert forget_quality(ratios(model), ratios(model))["forget_quality"].value == 1
    inverse = [1 / v for v in model], [1 / v for v in oracle]
    assert forget_quality(*map(ratios, inverse)) == found
    far = forget_quality(ratios([float(i) for i in range(900)]), ratios([-1.0] * 900))
    assert math.isfinite(far["forget_quality_log10"].value)


def members(forget, holdout) -> dict:
    return {"membership_forget": mean_score(forget), "membership_holdout": mean_score(holdout)}


def test_privleak_has_muses_sign():
    retrained = members([-2.0, -3.0], [-3.0, -2.0])
    memorised = members([-0.1, -0.2], [-3.0, -2.0])
    crushed = members([-9.0, -9.5], [-3.0, -2.0])
    assert membership_auc(retrained)["membership_auc"].value == 0.5
    assert privleak(memorised, retrained)["privleak"].value == -100
    assert privleak(crushed, retrained)["privleak"].value == 100
    assert privleak(retrained, retrained)["privleak"].value == 0
    assert membership_auc(memorised)["membership_auc"].value == 0
    with pytest.raises(ValueError, match="has seen the forget set"):
        privleak(retrained, memorised)


def test_the_lowest_share_takes_the_least_likely_and_at_least_one():
    logp = torch.tensor([-1.0, -5.0, -2.0, -4.0, -3.0])
    assert MinK(0.4)(logp) == pytest.approx(-4.5)
    assert MinK(0.4)(logp[:1]) == -1.0


def test_an_answer_without_tokens_leaves_its_question_unscored():
    def read(*logps):
        logp = torch.tensor(logps)
        return AnswerTokens(torch.ones(len(logps), dtype=torch.long), logp, logp > -1)

    whole = [read(-1.0), read(-2.0), read(-1.0, -3.0)]
    found = Answers("x", lambda t: []).likelihoods(
        [whole, [*whole[:2], read()]], [Example([9, 1], 1)] * 2
    )
    assert found["truth_ratio"] == [1.0, None]
    assert found["probability"] == [pytest.approx(math.exp(-1)), None]
    ratios = {"forget_truth_ratio": mean_score([0.1, None, 0.3])}
    assert forget_quality(ratios, ratios)["forget_quality"].n == 2
    with pytest.raises(ValueError, match="item 2 is not a number"):
        mean_score([0.5, math.nan])


class Blank:
    """A tokenizer that ends no text."""

    eos_token_id = None


def test_utility_kept_is_relative_to_the_original():
    original, after = mean_score([0.9, 0.7, None]), mean_score([0.5, 0.3, 0.4])
    first, second = utility_kept([{"knowmem_retain": original}, {"knowmem_retain": after}])
    assert first["knowmem_retain_kept"][:2] == (1.0, 0.0)
    assert second["knowmem_retain_kept"].value == pytest.approx(0.5)
    with pytest.raises(ValueError, match="comes first"):
        utility_kept([{"knowmem_retain": mean_score([0.0, 0.0])}, {"knowmem_retain": after}])


def test_the_error_of_a_share_is_that_of_resampled_items():
    draw = random.Random(0)
    y = [draw.uniform(0.2, 1) for _ in range(300)]
    x = [0.6 * b + draw.uniform(-0.1, 0.1) for b in y]
    ratios = []
    for _ in range(400):
        rows = draw.choices(range(300), k=300)
        ratios.append(sum(x[i] for i in rows) / sum(y[i] for i in rows))
    spread = statistics.stdev(ratios)
    assert share_of(mean_score(x), mean_score(y)).stderr == pytest.approx(spread, rel=0.15)


def lcs(a: list[str], b: list[str]) -> int:
    """Longest common subsequence, by the definition."""
    if not a or not b:
        return 0
    if a[-1] == b[-1]:
        return 1 + lcs(a[:-1], b[:-1])
    return max(lcs(a[:-1], b), lcs(a, b[:-1]))


def test_rouge_l_is_the_longest_common_subsequence():
    true, said = "the old mill stands near the river", "an old river stands near a mill"
    common = lcs(true.split(), said.split())
    found = rouge_l(true, said, stem=False)
    assert found is not None
    assert found.recall == pytest.approx(common / 7)
    assert found.f1 == pytest.approx(2 * common / 14)
    assert rouge_l("she sings", "she singing", stem=True).recall == 1
    assert rouge_l("she sings", "she singing", stem=False).recall == 0.5


def test_what_rouge_and_bleu_cannot_read_is_not_scored():
    assert rouge_l("Ω ж", "Ω ж", stem=False) is None
    assert rouge_l("mill", "", stem=False).recall == 0


OTHER_SCRIPTS = [
    "東京は2024年に",
    "Москва, 2024",
    "กรุงเทพ 2024",
    "दिल्ली 2024",
    "서울 2024",
    "Αθήνα 2024",
]


@pytest.mark.parametrize("reference", OTHER_SCRIPTS)
def test_words_that_rouge_does_not_read_leave_an_answer_unscored(reference):
    """Only the number was compared: 2024 alone had a recall of 1."""
    assert rouge_l(reference, "2024", stem=False) is None
    assert rouge_l("2024", reference, stem=False).recall == 1  # of the reference all was read


def test_symbols_and_accents_are_part_of_latin_text():
    assert rouge_l("TGF-β binds", "TGF binds", stem=False).recall == 1
    assert rouge_l("Ørsted, naïve 5 µm", "x", stem=False).recall == 0


def test_bleu_needs_words_with_spaces():
    for reference in ("東京は2024年に", "กรุงเทพ 2024"):
        assert bleu(reference, reference) is None
    assert bleu("Москва была столицей", "Москва была столицей") == pytest.approx(1)
    assert bleu("서울 은 수도 다", "서울 은 수도 다") == pytest.approx(1)
    assert bleu("", "mill") is None
    assert bleu("the old mill by the river", "the old mill by the river") == pytest.approx(1)


def test_refusals_are_known_and_answers_are_not():
    assert all(refuses(text) for text in REFUSALS)
    assert refuses(" I don\u2019t know the answer to that.")
    assert refuses("I'm not able to say who she is.")
    assert not refuses("Tom said he was sorry.")
    assert not refuses("I don't have a dog.")
    assert not refuses("Ann knows the miller. I don't know why.")
    assert not refuses("")


def test_answers_end_before_the_next_question():
    assert before_next_question(" In 1990.\nQuestion: Who?\nAnswer: Ann") == "In 1990."
    assert before_next_question(" Ann \n\nBen") == "Ann"


@pytest.fixture
def lm() -> LM:
    return LM(make_tiny(), None)


def test_read_answers_is_what_one_example_alone_says(lm):
    examples = [
        Example([3, 4, 5, 6], 1),
        Example([7, 8], 1),
        Example([3, 4, 5, 6], 1),
        Example([9, 10, 11, 12, 13, 14], 3),
    ]
    for size in (1, 2, 8):
        found = read_answers(lm, examples, batch_size=size, name="x")
        for example, read in zip(examples, found, strict=True):
            with torch.no_grad():
                logits = lm.model(torch.tensor([example.ids])).logits[0].double()
            logp = logits.log_softmax(-1)
            at = range(example.prompt, len(example.ids))
            assert read.ids.tolist() == example.ids[example.prompt :]
            expected = [logp[i - 1, example.ids[i]].item() for i in at]
            assert_same_to_rounding(read.logp, torch.tensor(expected))
            hits = [int(logp[i - 1].argmax()) == example.ids[i] for i in at]
            assert read.first.tolist() == hits


def test_read_answers_reads_each_sequence_once(lm, monkeypatch):
    head_of(lm.model)  # tries the output layer, once for each model
    seen: list[int] = []
    forward = lm.model.forward
    monkeypatch.setattr(
        lm.model, "forward", lambda **kw: (seen.append(len(kw["input_ids"])), forward(**kw))[1]
    )
    read_answers(lm, [Example([3, 4, 5], 1)] * 5 + [Example([6, 7], 1)], batch_size=4, name="x")
    assert sum(seen) == 2


def test_the_end_of_text_is_left_out_where_it_is_one():
    read = AnswerTokens(
        torch.tensor([5, 2]), torch.tensor([-1.0, -2.0]), torch.tensor([True, False])
    )
    assert words_of(read, Example([9, 5, 2], 1, end=1)).ids.tolist() == [5]
    for example in (Example([9, 5, 2], 1), Example([5, 2], 0)):
        assert words_of(read, example).ids.tolist() == [5, 2]


def test_the_lab_model_scores_its_own_greedy_text_as_memorised():
    """Teacher forcing and greedy decoding agree: what it generates it has by heart."""
    lab = load_model("lab")
    ids = list(lab.tokenizer("The old mill").input_ids)
    head = ids[:-1] if ids[-1] == lab.tokenizer.eos_token_id else ids
    with torch.no_grad():
        full = list(head)
        for _ in range(8):
            full.append(int(lab.model(torch.tensor([full])).logits[0, -1].argmax()))
    (read,) = read_answers(lab, [Example(full, len(head))], batch_size=1, name="x")
    assert extraction_strength(read.first) == 1
