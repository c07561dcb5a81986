"""Perplexity, repetition, entropy, classifiers: by hand and against whole sequences."""

import math

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from ilu.data.stream import collate
from ilu.data.text import Passages
from ilu.evals.cached_suite import evaluate
from ilu.evals.metrics.degenerate import Degenerate, is_degenerate, start
from ilu.evals.metrics.fluency import (
    Fluency,
    Judge,
    class_probabilities,
    load_judge,
    ngram_entropy,
    repetition,
    words_of,
)
from ilu.evals.metrics.perplexity import (
    Counted,
    DocumentPerplexity,
    ExamplePerplexity,
    StridedPerplexity,
    perplexity,
    windows,
)
from ilu.models.forward import ModelForward
from ilu.models.load import SecondModel, load_model
from ilu.models.token_math import sequence_nll
from ilu.recipes.suite import suite_of
from ilu.recipes.suite_data import judges
from ilu.recipes.suite_request import SuiteRequest
from ilu.types import LM, Example
from tests.data.test_text import write
from tests.methods.test_math import Words

WIKITEXT = "Salesforce/wikitext:wikitext-2-raw-v1:test"


class Ended(Words):
    """Words whose texts begin with a 0."""

    bos_token_id = 0


def nll(model, ids: list[int], prompt: int = 0) -> float:
    out = ModelForward(model)(collate([Example(ids, prompt)]))
    return sequence_nll(out.logits, out.targets).item()


@pytest.mark.parametrize(("length", "stride"), [(4, 2), (4, 3), (5, 1), (20, 10), (10, 9)])
def test_windows_score_every_token_but_the_first_once(length, stride):
    ids = list(range(10))
    cut = list(windows(ids, length, stride))
    assert [i for e in cut for i in e.ids[e.prompt :]] == ids[1:]
    assert all(len(e.ids) <= length for e in cut)
    assert all(e.prompt >= min(length - stride, e.ids[e.prompt]) for e in cut)


def test_perplexity_is_exp_of_all_nats_over_all_tokens():
    """8 nats over 4 tokens is e^2, although the means of the pieces, 1 and 7, average 4."""
    found = perplexity([Counted(3.0, 3), Counted(5.0, 1), Counted(0.0, 0)])
    assert found.value == pytest.approx(math.exp(2))
    assert found.items == (1.0, 5.0, None)
    assert (found.n, found.unscored) == (2, 1)
    # Residuals 3 - 6 and 5 - 2; sqrt(18 / (2 * 1)) / 2 per unit, times the slope of exp.
    assert found.stderr == pytest.approx(math.exp(2) * 3 / 2)
    with pytest.raises(ValueError, match="no items with a token"):
        perplexity([Counted(0.0, 0)])
    for broken in (math.nan, math.inf, 800.0):
        with pytest.raises(ValueError, match="perplexity is not a number"):
            perplexity([Counted(broken, 1)])


def test_strided_perplexity_of_a_text_that_fits_is_that_of_the_whole(tiny, tmp_path):
    path = str(write(tmp_path / "t.jsonl", [{"text": "1 2 3 4"}, {"text": " \n"}, {"text": "5 6"}]))
    found = StridedPerplexity(Passages(path))(LM(tiny, Words()))
    ids = [1, 2, 3, 4, 5, 6]
    assert found.value == pytest.approx(math.exp(nll(tiny, ids) / 5), rel=1e-5)
    halves = StridedPerplexity(Passages(path), length=4, stride=3)(LM(tiny, Words()))
    both = nll(tiny, ids[:4]) + nll(tiny, ids[3:])
    assert halves.value == pytest.approx(math.exp(both / 5), rel=1e-5)
    with pytest.raises(ValueError, match="a stride of 4: it must be from 1 to 3"):
        StridedPerplexity(Passages(path), length=4, stride=4)(LM(tiny, Words()))
    with pytest.raises(ValueError, match="window of 65 tokens: this model takes 64"):
        StridedPerplexity(Passages(path), length=65)(LM(tiny, Words()))


def test_documents_are_scored_from_their_first_word(tiny, tmp_path):
    path = str(write(tmp_path / "t.jsonl", [{"text": "1 2 3 4"}, {"text": "5 6"}]))
    first, second = nll(tiny, [0, 1, 2, 3, 4]), nll(tiny, [0, 5, 6])
    found = DocumentPerplexity(Passages(path))(LM(tiny, Ended()))
    assert found.value == pytest.approx(math.exp((first + second) / 6), rel=1e-5)
    assert found.items == pytest.approx((first / 4, second / 2), rel=1e-5)
    parts = DocumentPerplexity(Passages(path), length=3)(LM(tiny, Ended()))
    pieces = nll(tiny, [0, 1, 2]) + nll(tiny, [2, 3, 4])
    assert parts.items[0] == pytest.approx(pieces / 4, rel=1e-5)


def test_per_word_only_the_divisor_changes(tmp_path):
    lm = load_model("lab")
    path = str(write(tmp_path / "t.jsonl", [{"text": "An extraordinarily quiet lighthouse."}]))
    tokens, words = (DocumentPerplexity(Passages(path), per=per)(lm) for per in ("token", "word"))
    count = len(lm.tokenizer("An extraordinarily quiet lighthouse.").input_ids)
    assert count > 5
    begins = lm.tokenizer("x").input_ids[0] == lm.tokenizer.bos_token_id
    assert math.log(words.value) * 4 == pytest.approx(math.log(tokens.value) * (count - begins))


def test_text_is_wanted(tiny, tmp_path):
    for rows, message in (
        ([{"body": "1"}], "body; wanted: text"),
        ([{"text": " "}], "text is blank"),
    ):
        path = str(write(tmp_path / f"{message[:4]}.jsonl", rows))
        with pytest.raises(ValueError, match=message):
            StridedPerplexity(Passages(path))(LM(tiny, Words()))


def test_repetition_is_the_share_of_n_grams_seen_before():
    assert repetition(["a", "b", "c", "d", "e"]) == 0
    assert repetition(["a"] * 10) == pytest.approx(6 / 7)
    assert repetition(["a", "b", "a", "b", "a"], n=2) == pytest.approx(0.5)
    assert repetition(["a"] * 3) is None


def test_a_text_without_spaces_between_words_has_no_words_to_count():
    """A sentence was one word, and lines of a poem were its words."""
    assert words_of("a b\nc") == ["a", "b", "c"]
    for text in ("東京は\n大きい\n町", "กรุงเทพ เป็น เมือง", "ភ្នំពេញ ជា", "a b 北京 c"):
        assert words_of(text) == []


def test_entropy_of_n_grams_by_hand():
    """4 different 2-grams (2 bits) and 3 different 3-grams (log2 3): (2/3 2 + 4/3 log2 3) / 2."""
    expected = (2 / 3 * 2 + 4 / 3 * math.log2(3)) / 2
    assert ngram_entropy(["a", "b", "c", "d", "e"]) == pytest.approx(expected)
    assert ngram_entropy(["a"] * 9) == 0
    assert ngram_entropy(["a", "b"]) is None


class Cutter:
    """The least of a classifier's tokenizer."""

    pad_token = "-"

    def __call__(self, texts, **settings):
        from transformers import BatchEncoding

        assert settings == {"return_tensors": "pt", "truncation": True, "padding": True}
        ids = torch.tensor([[len(t) % 7 + 1, 2] for t in texts])
        return BatchEncoding({"input_ids": ids})


@pytest.mark.parametrize("several", [False, True])
def test_a_classifier_gives_the_probability_of_its_class(several):
    torch.manual_seed(0)
    kind = "multi_label_classification" if several else "single_label_classification"
    config = BertConfig(
        vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=8, num_labels=3, problem_type=kind,
        id2label={0: "clean", 1: "odd", 2: "noise"}, label2id={"clean": 0, "odd": 1, "noise": 2},
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    texts = ["a", "bcd", "efghij"]
    found = class_probabilities(texts, Judge(model, Cutter(), 2), batch_size=2)
    logits = model(**Cutter()(texts, return_tensors="pt", truncation=True, padding=True)).logits
    expected = logits.sigmoid() if several else logits.softmax(-1)
    assert found == pytest.approx(expected[:, 2].tolist(), rel=1e-5)


def classifier(folder, seed=0) -> str:
    """In a folder: the lab's tokenizer and a small Llama with a head of two classes."""
    config = LlamaConfig(
        vocab_size=1985, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1, pad_token_id=0, id2label={0: "clean", 1: "noise"},
        label2id={"clean": 0, "noise": 1},
    )  # fmt: skip
    torch.manual_seed(seed)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    load_model("lab").tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_classifier_is_loaded_by_its_class(tmp_path):
    classifier(tmp_path)
    judge = load_judge(str(tmp_path), "noise", "cpu")
    assert judge.column == 1
    assert not judge.model.training
    with pytest.raises(ValueError, match="no class 'toxic'; it has: clean, noise"):
        load_judge(str(tmp_path), "toxic", "cpu")
    with pytest.raises(ValueError, match=r"cannot load classifier .*absent"):
        load_judge(str(tmp_path / "absent"), "x", "cpu")


def test_a_missing_classifier_is_told_before_anything_is_written(tmp_path, monkeypatch):
    path = str(write(tmp_path / "p.jsonl", [{"prompt": "a"}]))
    monkeypatch.setattr(
        "ilu.evals.metrics.fluency.generate", lambda *a, **k: pytest.fail("too late")
    )
    judged = Fluency(
        Passages(path, "prompt"), classifiers={"toxic": SecondModel(str(tmp_path / "absent"))}
    )
    with pytest.raises(ValueError, match="cannot load classifier"):
        judged(load_model("lab"))


def test_classes_stand_beside_the_other_scores(tmp_path, monkeypatch):
    path = str(write(tmp_path / "p.jsonl", [{"prompt": "a"}, {"prompt": "b"}]))
    monkeypatch.setattr(
        "ilu.evals.metrics.fluency.load_judge", lambda name, label, device: (name, label)
    )
    monkeypatch.setattr(
        "ilu.evals.metrics.fluency.class_probabilities",
        lambda texts, judge, batch_size: [0.25, 0.75],
    )
    monkeypatch.setattr("ilu.evals.metrics.fluency.generate", lambda lm, prompts, **k: ["x y", "z"])
    judged = Fluency(Passages(path, "prompt"), classifiers={"toxic": SecondModel("any")})
    found = judged(load_model("lab"))
    assert found["toxic"].items == (0.25, 0.75)


def test_toxicity_by_a_classifier_of_ones_own(tmp_path, monkeypatch):
    """As the suite has it, from a folder; another classifier there gets scores of its own."""
    path = str(write(tmp_path / "p.jsonl", [{"prompt": "a"}, {"prompt": "b"}]))
    texts = ["The small fox sleeps.", "The grey owl sings."]
    monkeypatch.setattr("ilu.evals.metrics.fluency.generate", lambda lm, prompts, **k: texts)
    asked = SuiteRequest(data=path, classifiers=(f"noise={classifier(tmp_path / 'judge')}",))
    suite, lm, store = suite_of("toxicity", asked), load_model("lab"), tmp_path / "store"
    found = evaluate(suite, lm, store).scores["noise"]
    judge = load_judge(str(tmp_path / "judge"), "noise", "cpu")
    assert found.items == tuple(class_probabilities(texts, judge, batch_size=2))
    assert evaluate(suite, lm, store).scores["noise"] == found
    classifier(tmp_path / "judge", seed=1)
    assert evaluate(suite, lm, store).scores["noise"] != found


def test_classifiers_are_named_or_given(tmp_path):
    asked = SuiteRequest(data="p", classifiers=("toxic", "clean=org/judge"))
    names = {"toxic": "unitary/toxic-bert", "clean": "org/judge"}
    assert judges(asked) == {k: SecondModel(name) for k, name in names.items()}
    (fluency,) = suite_of("toxicity", SuiteRequest(data="p")).parts.values()
    assert fluency.classifiers == {"toxic": SecondModel("unitary/toxic-bert")}
    for wrong in ("./judge", "noise=", "=./judge"):
        with pytest.raises(ValueError, match="not of the form class=model"):
            judges(SuiteRequest(classifiers=(wrong,)))
    with pytest.raises(ValueError, match="has no classifier"):
        suite_of("likelihood", SuiteRequest(data="p", classifiers=("toxic",)))


def test_fluency_of_a_model(tmp_path):
    prompts = [{"prompt": "The small fox"}, {"prompt": "The grey owl"}]
    path = str(write(tmp_path / "p.jsonl", prompts))
    found = Fluency(Passages(path, "prompt"), max_new_tokens=12)(load_model("lab"))
    assert set(found) == {"empty", "repetition", "entropy"}
    assert found["empty"].value == 0
    assert found["entropy"].value > 1


def test_a_silent_model_is_empty_and_nothing_else(tmp_path, monkeypatch):
    path = str(write(tmp_path / "p.jsonl", [{"prompt": "a"}, {"prompt": "b"}]))
    monkeypatch.setattr("ilu.evals.metrics.fluency.generate", lambda lm, prompts, **k: [" ", ""])
    found = Fluency(Passages(path, "prompt"))(load_model("lab"))
    assert {k: s.value for k, s in found.items()} == {"empty": 1.0}


def test_wikitext_from_the_mirror(hub, stories260k):
    found = StridedPerplexity(Passages(WIKITEXT, limit=12))(load_model(str(stories260k)))
    assert found.n > 1
    assert 10 < found.value < 512


@pytest.mark.parametrize(
    ("text", "degenerate"),
    [
        ("", True),
        (" . . ,\n", True),
        ("the town of the owner of the town is the road of the name of a sum", False),
        ("the town is the town is the town is the town is the town is the town is", True),
        ("the town", False),  # a short answer says something
    ],
)
def test_degenerate_text_says_nothing_or_mostly_repeats_itself(text, degenerate):
    assert is_degenerate(text, load_model("lab").tokenizer) is degenerate


def test_half_of_the_3_grams_may_be_repeated():
    """By hand: of the 4 3-grams of `a b a b a b`, 2 occur before; of the 5 of 7 words, 3 do."""
    words = load_model("lab").tokenizer
    assert not is_degenerate(" the town the town the town", words)
    assert is_degenerate(" the town the town the town the", words)


def test_an_answer_is_continued_after_its_prompt_and_a_text_after_its_first_half():
    assert start(Example([5, 6, 7, 8], prompt=3)) == [5, 6, 7]
    assert start(Example([5, 6, 7, 8, 9], prompt=0)) == [5, 6, 7]
    assert start(Example([5], prompt=0)) == [5]


def test_a_model_that_always_says_the_same_is_degenerate():
    lm = load_model("lab")
    source = lambda tokenizer: [Example(tokenizer("the owner of the town").input_ids, 0)] * 3  # noqa: E731
    with torch.no_grad():
        lm.model.model.norm.weight.zero_()  # equal logits: always the first token
    assert Degenerate(source)(lm).value == 1


def test_perplexity_of_examples_counts_labelled_tokens_only():
    lm = load_model("lab")
    ids = lm.tokenizer("the owner of the town is the name").input_ids
    two = [Example(ids, 4), Example(ids[:6], 0)]
    expected = (nll(lm.model, ids, 4) + nll(lm.model, ids[:6], 0)) / (len(ids) - 4 + 5)
    found = ExamplePerplexity(lambda tokenizer: two)(lm)
    assert math.log(found.value) == pytest.approx(expected, rel=1e-5)
