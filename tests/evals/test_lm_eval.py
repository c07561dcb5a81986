"""The adapter to lm-evaluation-harness, and our numbers against its own."""

import json
import math
import random
from functools import partial

import pytest
import torch

pytest.importorskip("lm_eval", reason="needs lm-evaluation-harness: pip install lm-eval")

import numpy as np

from ilu.data.lm_eval import HarnessTasks, task_manager, text_of
from ilu.data.multiple_choice import ChoiceRows
from ilu.data.stream import collate
from ilu.evals.cached_suite import LIBRARIES, part_key
from ilu.evals.metrics.lm_eval import Harness, evaluated, task_score, untouched
from ilu.evals.metrics.multiple_choice import ChoiceReport, option_logps, per_character, picked
from ilu.models.forward import ModelForward
from ilu.models.load import load_model
from ilu.models.token_math import sequence_nll
from ilu.system.record import describe, restore
from ilu.types import LM, Example
from tests.close import assert_same_to_rounding
from tests.data.test_text import write

pytestmark = pytest.mark.filterwarnings("ignore")  # not ours to mend

NAMES = ("Ann", "Ben", "Eve", "Tom")
PLACES = ("the mill", "an old lighthouse", "town", "a boat on the river")


def rows(count: int) -> list[dict]:
    """Questions that a model answers with every letter, because nobody knows the answers."""
    draw = random.Random(0)
    return [
        {
            "question": f"Where did {draw.choice(NAMES)} meet {draw.choice(NAMES)} in {1900 + i}?",
            "choices": draw.sample(PLACES, 4),
            "answer": draw.randrange(4),
        }
        for i in range(count)
    ]


def spec(path, form: str, name: str = "local") -> dict:
    """The task as lm-evaluation-harness is told of it."""
    letters = "".join(f"\n{x}. {{{{choices[{i}]}}}}" for i, x in enumerate("ABCD"))
    asked = "{{question.strip()}}" + letters if form == "letters" else "Question: {{question}}"
    metrics = [{"metric": m, "aggregation": "mean", "higher_is_better": True}
               for m in ("acc", "acc_norm")]  # fmt: skip
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": asked + "\nAnswer:",
        "doc_to_target": "answer",
        "doc_to_choice": ["A", "B", "C", "D"] if form == "letters" else "{{choices}}",
        "metric_list": metrics,
    }


@pytest.fixture(scope="module")
def lm() -> LM:
    return load_model("lab")


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return write(tmp_path / "questions.jsonl", rows(40))


@pytest.mark.parametrize("form", ["letters", "cloze"])
def test_both_predict_the_same_on_every_question(lm, path, form):
    loaded = HarnessTasks((spec(path, form),))()
    theirs = evaluated(lm, loaded, limit=None, batch_size=8)
    items = sorted(theirs["samples"]["local"], key=lambda s: s["doc_id"])
    asked = ChoiceRows(str(path), form=form)()
    ours = option_logps(lm, asked, batch_size=8)
    for item, question, row in zip(items, asked, ours, strict=True):
        logps = [float(r[0][0]) for r in item["resps"]]
        assert_same_to_rounding(torch.tensor(row), torch.tensor(logps))
        contexts = {context for context, _ in item["arguments"]}
        assert contexts == {question.prompt}
    taken = picked(ours)
    assert taken == [int(np.argmax([r[0][0] for r in item["resps"]])) for item in items]
    assert len(set(taken)) > 1
    right = [float(t == q.answer) for t, q in zip(taken, asked, strict=True)]
    assert right == [item["acc"] for item in items]
    norm = picked(per_character(ours, asked))
    assert [float(t == q.answer) for t, q in zip(norm, asked, strict=True)] == [
        item["acc_norm"] for item in items
    ]


def test_the_adapter_gives_the_scores_of_the_report(lm, path):
    found = Harness(HarnessTasks((spec(path, "cloze"),)), limit=25)(lm)
    rows = ChoiceRows(str(path), form="cloze")
    ours = ChoiceReport("local", lambda: rows()[:25])(lm)  # the harness takes the first
    assert found["local_acc"] == ours["local_acc"]._replace(chance=None)
    assert found["local_acc_norm"] == ours["local_acc_norm"]._replace(chance=None)
    assert len(found["local_acc"].items) == 25


def test_another_model_gets_other_scores_from_the_same_adapter(lm, path):
    """The harness's cache would give the second model the numbers of the first."""
    adapter = Harness(HarnessTasks((spec(path, "letters"),)))
    other = load_model("lab")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in other.model.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * p.std())
    first, second, again = (adapter(m)["local_acc"].items for m in (lm, other, lm))
    assert first == again != second


def test_the_model_and_its_tokenizer_are_left_as_they_were(lm, path):
    lm.model.train()
    lm.model.model.layers[0].eval()  # pyright: ignore
    torch.manual_seed(777)
    before, pad = torch.get_rng_state(), lm.tokenizer.pad_token
    Harness(HarnessTasks((spec(path, "letters"),)), limit=4)(lm)
    assert torch.equal(before, torch.get_rng_state())
    assert lm.tokenizer.pad_token == pad
    assert lm.model.training
    assert not lm.model.model.layers[0].training  # pyright: ignore
    lm.model.eval()


def test_all_random_states_are_put_back(lm):
    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    with untouched(lm.model):
        random.seed(1)
        np.random.seed(2)
        torch.manual_seed(3)
    assert states() == before


def test_groups_weigh_items_or_tasks(lm, path, tmp_path):
    """Two tasks of 40 and 10 questions: the group by size is their pooled items."""
    import yaml

    folder = tmp_path / "tasks"
    folder.mkdir()
    small = write(tmp_path / "small.jsonl", rows(50)[40:])
    for name, data in (("large", path), ("small", small)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(spec(data, "letters", name)))
    for group, by_size in (("sized", True), ("even", False)):
        metric = {"metric": "acc", "weight_by_size": by_size}
        config = {"group": group, "task": ["large", "small"], "aggregate_metric_list": [metric]}
        (folder / f"{group}.yaml").write_text(yaml.safe_dump(config))
    sized = Harness(HarnessTasks(("sized",), str(folder)))(lm)
    large, tiny = sized["large_acc"], sized["small_acc"]
    assert sized["sized_acc"].value == pytest.approx((40 * large.value + 10 * tiny.value) / 50)
    assert sized["sized_acc"].items == large.items + tiny.items
    even = Harness(HarnessTasks(("even",), str(folder)))(lm)["even_acc"]
    assert even.value == pytest.approx((large.value + tiny.value) / 2)
    assert even.stderr == pytest.approx((large.stderr**2 + tiny.stderr**2) ** 0.5 / 2)
    assert large.value != tiny.value


def test_a_metric_that_is_no_mean_gets_its_error_by_resampling():
    def ratio(values):
        return sum(a for a, _ in values) / sum(b for _, b in values)

    draw = random.Random(1)
    values = [(draw.gauss(2, 1), 1.0) for _ in range(400)]
    found = task_score(ratio(values), values, ratio)
    assert found.items == ()
    assert found.stderr == pytest.approx(1 / 20, rel=0.2)


def test_perplexity_of_a_local_text(lm, tmp_path, monkeypatch):
    """exp of all nats over all words; the harness puts a second first token before the first."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    texts = ("The small fox sat near the old mill.", "Ann met Ben by the river.")
    path = write(tmp_path / "t.jsonl", [{"text": text} for text in texts])
    task = {
        **spec(path, "cloze"),
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "doc_to_choice": None,
        "metric_list": [{"metric": "word_perplexity"}],
    }
    found = Harness(HarnessTasks((task,)))(lm)["local_word_perplexity"]
    begun = [[lm.tokenizer.bos_token_id, *lm.tokenizer(text).input_ids] for text in texts]
    out = ModelForward(lm.model)(collate([Example(ids, 1) for ids in begun]))
    nats = sequence_nll(out.logits, out.targets).sum().item()
    assert found.value == pytest.approx(math.exp(nats / 14), rel=1e-4)
    assert found.items == ()
    assert found.stderr > 0


def test_unknown_tasks_and_missing_data_are_errors_of_one_line(lm, monkeypatch, tmp_path):
    class Empty:
        all_tasks: tuple = ()

        def __init__(self, **settings):
            pass

    monkeypatch.setattr("lm_eval.tasks.TaskManager", Empty)  # reading all of its tasks takes 10 s
    with pytest.raises(ValueError, match="has no task 'nonsense'"):
        Harness(HarnessTasks(("nonsense",)))(lm)
    monkeypatch.undo()
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=r"cannot load its tasks: .*absent"):
        Harness(HarnessTasks((spec(tmp_path / "absent.jsonl", "cloze"),)))(lm)


def test_usual_tasks_are_found_without_reading_all(lm):
    names = [
        "wmdp",
        "wmdp_bio",
        "mmlu",
        "truthfulqa_mc1",
        "gsm8k",
        "winogrande",
        "sst2",
        "wikitext",
    ]
    assert len(task_manager(names, None).all_tasks) < 1000


def test_without_the_library_the_command_that_installs_it_is_named(lm, monkeypatch):
    monkeypatch.setattr("ilu.system.optional.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'lm-eval==[\d.]+'$"):
        Harness(HarnessTasks(("wmdp",)))(lm)


def test_a_recipe_can_hold_tasks_of_the_harness(path):
    adapter = Harness(HarnessTasks((spec(path, "cloze"), "wmdp")))
    assert restore(json.loads(json.dumps(describe(adapter)))).tasks.tasks[1] == "wmdp"


def test_shots_count_unless_a_task_insists_on_none(path):
    """As in the harness's own command; a task that says nothing has none by default."""
    free, zero, five = (
        {**spec(path, "letters", name), **({} if own is None else {"num_fewshot": own})}
        for name, own in (("free", None), ("zero", 0), ("five", 5))
    )

    def shots(wanted):
        loaded = HarnessTasks((free, zero, five), num_fewshot=wanted)()["tasks"]
        return [loaded[name].get_config("num_fewshot") for name in ("free", "zero", "five")]

    assert shots(None) == [0, 0, 5]
    assert shots(3) == [3, 0, 3]


def test_all_that_is_asked_is_part_of_the_key(lm, path, tmp_path):
    """Items that are the same, other prompts, options, solved examples."""
    solved = write(tmp_path / "solved.jsonl", rows(50)[40:])
    data = {"data_files": {"test": str(path), "train": str(solved)}}
    shown = {**spec(path, "letters"), "dataset_kwargs": data, "fewshot_split": "train"}

    def key(task: dict, **more) -> str:
        return part_key("m", Harness(HarnessTasks((task,), **more), limit=3), lm, {})

    assert key(shown, num_fewshot=1) == key(shown, num_fewshot=1)
    folder = tmp_path / "tasks"
    folder.mkdir()

    def of_file(task: dict) -> str:
        (folder / "local.yaml").write_text(json.dumps(task))
        return part_key("m", Harness(HarnessTasks(("local",), str(folder), 1), limit=3), lm, {})

    first = of_file(shown)
    assert of_file(shown) == first
    for changed in (
        {"doc_to_text": "{{question}} Say:"},
        {"doc_to_choice": ["B", "A", "C", "D"]},
        {"metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]},
    ):
        assert of_file({**shown, **changed}) != first
    write(tmp_path / "solved.jsonl", rows(60)[50:])
    assert of_file(shown) != first


def test_code_of_a_task_counts_by_its_text():
    """Some tasks of the harness are made of functions with some arguments given already."""
    found = json.dumps(partial(rows, 3), default=text_of)
    assert "NAMES" in found
    assert " at 0x" not in found


def test_the_library_of_the_harness_is_part_of_the_key():
    assert {"lm-eval", "scikit-learn"} <= set(LIBRARIES)
