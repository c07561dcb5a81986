"""What a model says to a few questions, and where it is kept."""

import json

import pytest

from ilu.data.multiple_choice import spread
from ilu.evals.metrics.multiple_choice import Choice
from ilu.evals.samples import COUNT, questions_of, samples
from ilu.evals.suite import Suite
from ilu.lab.sources import Facts
from ilu.models.load import load_model
from ilu.recipes.build import build
from ilu.runs.run import Options, run


@pytest.fixture(scope="module")
def lm():
    return load_model("lab")


def test_a_sample_has_the_question_the_pick_and_a_text(lm):
    questions = Facts("agents")()
    rows = samples(lm, questions)
    chosen = spread(questions, COUNT)
    assert [row["prompt"] for row in rows] == [q.prompt for q in chosen]
    for row, question in zip(rows, chosen, strict=True):
        assert row["options"] == list(question.options)
        assert row["picked"] == row["answer"] == question.answer  # the lab's model knows them
        assert row["value"] == 1
        assert row["generated"].startswith(question.options[question.answer].strip()[:4]) or (
            question.options[question.answer].strip() in row["generated"]
        )
    assert json.loads(json.dumps(rows)) == rows


def test_without_room_there_is_no_text(lm, monkeypatch):
    from ilu.evals import samples as module

    monkeypatch.setattr(module, "context_length", lambda model: 1)
    assert {row["generated"] for row in samples(lm, Facts("agents", count=2)())} == {""}


def test_questions_are_found_in_metrics_and_suites():
    choice = Choice(Facts("agents", count=3))
    assert questions_of({"forget_accuracy": choice}, "forget_accuracy") == choice.questions()
    suite = Suite({"forget_accuracy": choice})
    assert questions_of({"lab": suite}, "forget_accuracy") == choice.questions()
    assert questions_of({"lab": suite}, "utility") == []


def test_a_run_keeps_samples_unless_told_not_to(tmp_path):
    recipe = build("npo", {"model": "lab", "steps": 1})
    kept = run(recipe, tmp_path / "kept")
    assert len(kept.rows("samples/before")) == len(kept.rows("samples/after")) == COUNT
    bare = run(recipe, tmp_path / "bare", Options(samples=False))
    assert not (bare.path / "samples").exists()
    assert kept.scores("after") == bare.scores("after")
