"""The demo on a real model, tried on a tiny one of another vocabulary."""

from dataclasses import replace

import pytest

from ilu.data.facts.sources import FactDocuments
from ilu.data.stream import open_stream
from ilu.lab.sources import TaskTrain
from ilu.models.load import load_model, load_tokenizer
from ilu.models.named import is_at_hand
from ilu.recipes import demo_real
from ilu.recipes.build import build
from ilu.runs.run import Options, run
from tests.conftest import make_tiny

NEEDS_IT = pytest.mark.skipif(
    not is_at_hand("smollm2"), reason="smollm2 is not installed: requirements-smollm2.txt"
)


@pytest.fixture
def without_hub(monkeypatch):
    monkeypatch.delenv("ILU_HUB", raising=False)


def test_the_tasks_are_of_the_hub_where_it_is_and_of_the_package_elsewhere(hub, monkeypatch):
    assert demo_real.tasks() == ("gsm8k", "sst2")
    monkeypatch.delenv("ILU_HUB")
    assert demo_real.tasks() == ("sums", "mood")


@NEEDS_IT
def test_every_model_forgets_the_same_and_is_attacked_alike(without_hub):
    first, *others = demo_real.recipes(0, demo_real.FULL)
    assert [each.name for each in others] == list(demo_real.NAMES)
    assert first.objective == {}
    for each in others:
        assert each.attacks.keys() == {"sums", "mood", "relearn-half"}
        assert each.metrics == first.metrics
        assert {*each.metrics} == {"forget_accuracy", "utility"}
        assert {"forget_nll", "degenerate", "utility_generated"} <= {*each.slow_metrics}
        assert ("environment" in each.data) == each.name.endswith("-ilu")
    half = first.attacks["relearn-half"]
    assert half.feed.source == FactDocuments("facts:elements/a")
    assert half.goals["others_accuracy"].questions.items.name == "facts:elements/b"


@NEEDS_IT
@pytest.mark.filterwarnings("ignore:openai/gsm8k")
def test_the_penalty_reads_examples_as_long_as_those_of_the_attacks(hub):
    tokenizer = load_tokenizer("smollm2")
    made = next(r for r in demo_real.recipes(0, demo_real.FULL) if r.name == "rmu-ilu")
    for feed in (made.data["environment"], made.attacks["gsm8k"].feed):
        read = open_stream(feed, tokenizer, limit=2048, seed=0, name="environment")
        assert max(read(i).input_ids.shape[1] for i in range(4)) == demo_real.TOKENS


@NEEDS_IT
def test_the_quick_demo_runs(without_hub, tmp_path):
    tokenizer = load_model("lab").tokenizer
    make_tiny(len(tokenizer), 512).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    options = Options(shared=tmp_path / "shared")
    for planned in demo_real.recipes(0, demo_real.QUICK)[:2]:
        made = run(
            replace(planned, model=str(tmp_path / "model")), tmp_path / planned.name, options
        )
        assert not made.failures()
        assert made.stages() == ["before", "after", "sums-end", "mood-end", "relearn-half-end"]
        assert set(made.scores("relearn-half-end")) == {
            "forget_accuracy", "utility", "others_accuracy",
        }  # fmt: skip


def test_a_task_of_the_lab_is_an_environment_of_any_model():
    made = build("npo-ilu", {"model": "lab", "environment": ("mood",)})
    assert made.data["environment"].source == TaskTrain("mood")
    with pytest.raises(
        ValueError, match=r"mood has fixed columns: leave `environment_columns` out"
    ):
        build(
            "npo-ilu", {"model": "lab", "environment": ("mood",), "environment_columns": ("a=b",)}
        )
