"""The field's data sets: short names, their shapes, and the real ones where there is a mirror."""

import json

import pytest

from ilu.data.hub import HubName, from_hub, hub_name
from ilu.data.muse import FewShot
from ilu.data.names import KNOWN, Place, place
from ilu.data.text import Dataset
from ilu.data.tofu import Perturbed
from ilu.models.load import load_model
from ilu.recipes.user_data import dataset


@pytest.fixture(scope="module")
def tokenizer():
    return load_model("lab").tokenizer


def write(path, rows) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def shown(example, tokenizer) -> tuple[str, str]:
    """Prompt and answer as text."""
    parts = example.ids[: example.prompt], example.ids[example.prompt :]
    return tuple(tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in parts)


def test_every_short_name_leads_to_a_hub_dataset():
    for known in KNOWN.values():
        hub_name(known.name)
        assert known.revision is None or len(known.revision) == 40


def test_short_names_are_recorded_in_full():
    source = dataset("tofu:forget10", (), None)
    assert source.name == "locuslab/TOFU:forget10"
    assert source.revision == KNOWN["tofu:forget10"].revision
    assert dataset("locuslab/TOFU:forget10", (), None) == Dataset("locuslab/TOFU:forget10")
    assert dataset("c4", (), None).count == 10_000
    assert place("openai/gsm8k:main") == Place("openai/gsm8k:main")
    with pytest.raises(ValueError, match=r"unknown dataset 'tofu:forget15'; there are: tofu:f"):
        place("tofu:forget15")


SHAPES = [
    (
        [
            {"prompt": "Who?", "response_0": "Ann.", "response_1": "Ben.",
             "is_response_0_safe": True, "is_response_1_safe": False},
            {"prompt": "Where?", "response_0": "Here.", "response_1": "There.",
             "is_response_0_safe": False, "is_response_1_safe": False},
        ],
        [("Question: Who?\nAnswer:", "Ben."), ("Question: Where?\nAnswer:", "Here."),
         ("Question: Where?\nAnswer:", "There.")],
    ),
    ([{"prompt": "The old", "gt": " mill stands."}], [("The old", "mill stands.")]),
    (
        [{"query": "Who sings?", "answer": "Ann", "subject": "Ann", "level": "2", "type": "x"}],
        [("Question: Who sings?\nAnswer:", "Ann")],
    ),
    (
        [{"id": "1", "input": "Ann lives", "output": "near the mill.", "task": "Task1"}],
        [("Ann lives", "near the mill.")],
    ),
    (
        [{"train": [{"text": "Who?", "labels": "Ann"}, {"text": "Where?", "labels": "Here"}],
          "val": [{"text": "When?", "labels": "Now"}]}],
        [("Question: Who?\nAnswer:", "Ann"), ("Question: Where?\nAnswer:", "Here")],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "expected"), SHAPES)
def test_shapes_of_benchmarks_become_prompts_and_answers(rows, expected, tmp_path, tokenizer):
    examples = Dataset(write(tmp_path / "d.jsonl", rows))(tokenizer)
    normal = [tuple(" ".join(part.split()) for part in pair) for pair in expected]
    found = [tuple(" ".join(p.split()) for p in shown(e, tokenizer)) for e in examples]
    assert found == normal


PERTURBED = [
    {
        "question": "Who sings?",
        "answer": "Ann sings.",
        "paraphrased_answer": "It is Ann.",
        "perturbed_answer": ["It is Ben.", "It is Tom."],
    },
    {"question": "Where?", "answer": "The mill", "perturbed_answer": ["The river"]},
]


def test_perturbed_answers_stand_after_the_original_question(tmp_path, tokenizer):
    first, second = Perturbed(write(tmp_path / "p.jsonl", PERTURBED))(tokenizer)
    answers = [shown(e, tokenizer)[1] for e in (first, *first.others)]
    assert answers == ["Ann sings.", "It is Ann.", "It is Ben.", "It is Tom."]
    assert {shown(e, tokenizer)[0] for e in (first, *first.others)} == {
        "Question: Who sings?\nAnswer:"
    }
    assert second.others[0] == second._replace(others=())
    assert len(Perturbed(str(tmp_path / "p.jsonl"), limit=1)(tokenizer)) == 1
    with pytest.raises(ValueError, match=r"no column 'perturbed_answer'.*ends in _perturbed"):
        Perturbed(write(tmp_path / "q.jsonl", [{"question": "a", "answer": "b"}]))(tokenizer)


def test_few_shots_stand_before_every_question(tmp_path, tokenizer):
    icl = write(tmp_path / "icl.jsonl", [{"question": "A?", "answer": "a"}])
    asked = write(
        tmp_path / "qa.jsonl",
        [{"question": "B?", "answer": "Ann"}, {"question": "C?", "answer": "c"}],
    )
    first, _ = FewShot(asked, icl)(tokenizer)
    prompt, answer = shown(first, tokenizer)
    assert " ".join(prompt.split()) == "Question: A? Answer: a Question: B? Answer:"
    assert answer == "Ann"


ROWS = {
    "locuslab/TOFU": {"question": "Who?", "answer": "Ann"},
    "muse-bench/MUSE-News:verbmem": {"prompt": "The old", "gt": "mill"},
    "muse-bench/MUSE-Books:verbmem": {"prompt": "The old", "gt": "mill"},
    "muse-bench/MUSE-News:knowmem": {"question": "Who?", "answer": "Ann"},
    "muse-bench/MUSE-Books:knowmem": {"question": "Who?", "answer": "Ann"},
    "cais/wmdp-bio-forget-corpus": {
        "title": "Mills", "abstract": "Of mills.", "text": "A mill.", "doi": "0"
    },
    "PKU-Alignment/PKU-SafeRLHF": SHAPES[0][0][1],
    "jinzhuoran/RWKU:train": {"subject": "Ann", "text": "Ann sings."},
    "jinzhuoran/RWKU": SHAPES[2][0][0],
    "llmunlearningsemeval2025organization": {**SHAPES[3][0][0], "split": "retain"},
    "zjunlp/KnowUnDo": SHAPES[4][0][0],
    "": {"text": "The old mill."},
}  # fmt: skip
"""Beginning of a hub name -> a row as that dataset has them; the first that fits counts."""


@pytest.mark.parametrize("name", KNOWN)
def test_every_short_name_works_from_a_local_mirror(name, tmp_path, monkeypatch, tokenizer):
    repository, config, split = hub_name(KNOWN[name].name)
    row = next(row for start, row in ROWS.items() if KNOWN[name].name.startswith(start))
    write(tmp_path / repository / (config or "default") / f"{split}.jsonl", [row])
    monkeypatch.setenv("ILU_HUB", str(tmp_path))
    assert all(len(e.ids) > e.prompt for e in dataset(name, (), None)(tokenizer))


def test_lume_is_told_where_to_be_had(tmp_path, monkeypatch):
    monkeypatch.setenv("ILU_HUB", str(tmp_path))
    with pytest.raises(ValueError, match=r"data/forget\.jsonl.*lume-llm-unlearning; then name"):
        dataset("lume:forget", (), None)(None)


def test_what_is_given_out_on_request_says_where(tmp_path, monkeypatch):
    monkeypatch.setenv("ILU_HUB", str(tmp_path))
    page = "huggingface.co/datasets/cais/wmdp-bio-forget-corpus"
    with pytest.raises(ValueError, match=f"{page}; then name your own file"):
        dataset("wmdp:bio-forget", (), None)(None)


def test_a_streamed_dataset_is_cut_and_pinned(monkeypatch):
    import datasets

    asked = {}

    def load_dataset(name, config, **options):
        asked.update(options, name=name, config=config)
        return ({"text": str(i)} for i in range(10**9))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("ilu.data.hub.silent", lambda url: None)
    rows = from_hub(HubName("allenai/c4", "en", "train"), "abc", 3)
    assert list(rows.read()) == [{"text": "0"}, {"text": "1"}, {"text": "2"}]
    assert (asked["streaming"], asked["revision"], asked["config"]) == (True, "abc", "en")


REAL = [
    ("tofu:full", 4000), ("tofu:forget01", 40), ("tofu:forget05", 200), ("tofu:forget10", 400),
    ("tofu:retain90", 3600), ("tofu:retain95", 3800), ("tofu:retain99", 3960),
    ("tofu:real_authors", 100), ("tofu:world_facts", 117),
]  # fmt: skip


@pytest.mark.parametrize(("name", "count"), REAL)
def test_real_tofu_loads_from_the_mirror(name, count, hub, tokenizer):
    examples = dataset(name, (), None)(tokenizer)
    assert len(examples) == count
    assert all(0 < e.prompt < len(e.ids) for e in examples)


SETS = [
    ("forget01_perturbed", 40, 6), ("forget05_perturbed", 200, 6), ("forget10_perturbed", 400, 6),
    ("retain_perturbed", 400, 6), ("real_authors_perturbed", 100, 4),
    ("world_facts_perturbed", 117, 4),
]  # fmt: skip


@pytest.mark.parametrize(("name", "count", "others"), SETS)
def test_real_perturbed_sets_load_from_the_mirror(name, count, others, hub, tokenizer):
    examples = Perturbed(f"locuslab/TOFU:{name}", limit=50)(tokenizer)
    assert len(examples) == min(count, 50)
    assert {len(e.others) for e in examples} == {others}


def test_real_wikitext_loads_from_the_mirror_but_for_its_empty_lines(hub, tokenizer):
    examples = dataset("wikitext:test", (), 64)(tokenizer)
    assert len(examples) == 4358 - 1467


def test_blank_lines_are_left_out_only_where_they_are_expected(tmp_path, tokenizer):
    path = write(tmp_path / "d.jsonl", [{"text": ""}, {"text": "Ann sleeps."}, {"text": " \n"}])
    assert len(Dataset(path, skip_blank=True)(tokenizer)) == 1
    with pytest.raises(ValueError, match="1 rows have no text"):
        Dataset(path)(tokenizer)
