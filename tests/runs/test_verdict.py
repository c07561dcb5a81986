"""The sentence over a model's summary, rankings, names of rows, samples, and paths of the page."""

import json
import re

import pytest

from ilu.evals.metrics.multiple_choice import accuracy
from ilu.runs.report.curves import forgotten_figures
from ilu.runs.report.evidence import percent
from ilu.runs.report.formats import write_report
from ilu.runs.report.gather import gather
from ilu.runs.report.page import page
from ilu.runs.report.paired import comparisons
from ilu.runs.report.places import local, local_record
from ilu.runs.report.samples import samples
from ilu.runs.report.table import make_table
from ilu.runs.report.verdict import unranked, verdicts
from ilu.runs.results.display import complement
from ilu.runs.results.run_metrics import guessing, read
from ilu.runs.run_dir import RunDir
from ilu.types import Question
from tests.fabricate import HALF, KNOWN, LOST, MOST, QUESTIONS, defended, make_run, score, tuned
from tests.runs.test_report import DEMO, table_of


def shares(right, n=400):
    """``n`` answers, the first ``right`` of them right."""
    return (1,) * right + (0,) * (n - right)


def with_chance(path, chance):
    """The run, whose scores know what guessing gives."""
    for file in (path / "scores").glob("*.json"):
        scores = json.loads(file.read_text())
        file.write_text(json.dumps({k: {**s, "chance": chance} for k, s in scores.items()}))
    return path


# Guessing


def test_guessing_is_the_mean_over_the_questions_that_were_scored():
    four, two = Question("a", (" a", " b", " c", " d"), 0), Question("b", (" a", " b"), 1)
    assert accuracy([0, 1, 1], [four, two, two]).chance == pytest.approx((1 / 4 + 2 / 2) / 3)
    assert accuracy([0, None], [four, two]).chance == 1 / 4  # the second could not be scored
    assert complement(accuracy([0], [four])).chance == 3 / 4


def test_a_score_file_has_guessing_only_where_it_is_known(tmp_path):
    known, unknown = score(HALF)._replace(chance=0.25), score(HALF)
    RunDir(tmp_path).write_scores("after", {"known": known, "unknown": unknown})
    stored = json.loads((tmp_path / "scores" / "after.json").read_text())
    assert stored["known"]["chance"] == 0.25
    assert list(stored["unknown"]) == ["value", "stderr", "n", "unscored"]  # as older versions
    found = RunDir(tmp_path).scores("after")
    assert (found["known"].chance, found["unknown"].chance) == (0.25, None)


def test_older_records_of_the_lab_are_known_to_have_four_options(tmp_path):
    assert guessing(read(RunDir(DEMO / "npo"))) == 0.25
    path = defended(tmp_path / "a")
    assert guessing(read(RunDir(path))) is None
    assert guessing(read(RunDir(with_chance(path, 0.5)))) == 0.5


def test_the_line_at_guessing_is_drawn_where_all_rows_agree(tmp_path):
    half = with_chance(defended(tmp_path / "a", "npo"), 0.5)
    third = with_chance(defended(tmp_path / "b", "rmu"), 1 / 3)
    plain = defended(tmp_path / "c", "dpo")
    dotted = "stroke-dasharray"

    def lines(*paths):
        (panel,) = forgotten_figures(table_of(*paths).rows)
        return panel.svg.count(dotted)

    assert (lines(half), lines(half, third), lines(plain)) == (1, 0, 0)
    assert "<bdi>guessing</bdi>" in page(table_of(half), [])
    assert "<bdi>guessing</bdi>" not in page(table_of(plain), [])


# The sentence


def test_the_sentence_says_what_was_known_is_known_and_comes_back(tmp_path):
    found = {v.label: v.sentence for v in verdicts(table_of(DEMO).rows)}
    assert found["rmu-ilu"] == (
        "The model answered 100 % of the questions on what was to be forgotten; after unlearning "
        "46 %, after the worst attack (relearn) 95 % of the 400 questions that the attack did not "
        "train on. Guessing gives 25 %."
    )
    attacks = {"mood": tuned(LOST, HALF, HALF, KNOWN)}
    rows = table_of(make_run(tmp_path / "a", "npo", KNOWN, LOST, attacks)).rows
    assert verdicts(rows)[0].sentence == (
        "The model answered 100 % of the questions on what was to be forgotten; after unlearning "
        "0 %, after the worst attack (mood) 50 %."
    )
    assert [percent(x) for x in (0, 1, 0.996, 0.004, 0.5)] == [
        "0 %",
        "100 %",
        "99.6 %",
        "0.4 %",
        "50 %",
    ]


def test_questions_the_original_does_not_know_show_no_forgetting(tmp_path):
    """Of 400 questions with four options, 110 right are within the error of guessing, 150 not."""
    guessed = with_chance(make_run(tmp_path / "a", "npo", shares(110), shares(20), {}), 0.25)
    known = with_chance(make_run(tmp_path / "b", "rmu", shares(150), shares(100), {}), 0.25)
    table = table_of(guessed, known)
    found = {v.label: v.sentence for v in verdicts(table.rows)}
    assert found["npo"].endswith(
        "These questions show no forgetting: the original answers 28 % of them, which is not "
        "significantly above guessing (25 %)."
    )
    assert "no forgetting" not in found["rmu"]
    assert list(found) == ["rmu", "npo"]  # whatever npo's numbers are
    assert table.best == {}
    assert "npo</bdi> ‡" in page(table, [])


@pytest.mark.parametrize("items", [True, False])
def test_a_change_that_may_be_noise_is_no_forgetting(tmp_path, items):
    noise = make_run(tmp_path / "a", "npo", shares(200), shares(197), {}, items=items)
    worse = make_run(tmp_path / "b", "dpo", shares(200), shares(300), {}, items=items)
    clear = make_run(tmp_path / "c", "rmu", shares(200), shares(100), {}, items=items)
    rows = {row.label: row for row in table_of(noise, worse, clear).rows}
    assert {label for label, row in rows.items() if row.no_forgetting} == {"npo", "dpo"}
    assert not rows["npo"].eligible
    after, *_ = comparisons(list(rows.values())) if items else [None]
    assert after is None or after.best == "rmu"


def test_the_original_itself_is_not_judged(tmp_path):
    (row,) = table_of(make_run(tmp_path / "a", "original", shares(10), shares(10), {})).rows
    assert row.no_forgetting == ""


# Different questions


def test_models_asked_different_questions_are_not_ranked(tmp_path):
    def run(name, right, **more):
        return make_run(tmp_path / name, name, shares(400), shares(right), {}, **more)

    other = {"asked_accuracy": {"type": "other.questions"}, "utility": QUESTIONS}
    first, second = run("npo", 300), run("rmu", 100)
    few = make_run(tmp_path / "few", "few", shares(40, 40), shares(1, 40), {})
    same, mixed = table_of(first, second), table_of(first, second, few)
    assert (same.best["forgotten"], [v.label for v in verdicts(same.rows)]) == (
        "rmu",
        ["rmu", "npo"],
    )
    assert not unranked(same.rows)
    assert unranked(mixed.rows)
    assert "forgotten" not in mixed.best
    assert [v.label for v in verdicts(mixed.rows)] == ["npo", "rmu", "few"]  # as in the table
    assert "they are not ranked" in page(mixed, [])
    assert "they are not ranked" not in page(same, [])
    foreign = run("dpo", 0, metrics=other | {"forget_accuracy": {"type": "x"}})
    after, *_ = comparisons(table_of(first, second, foreign).rows)
    assert (after.best, list(after.rows)) == ("rmu", ["npo"])  # dpo forgot more, of other things


# Names


def test_a_row_that_unlearned_nothing_is_called_by_its_model(tmp_path):
    def run(name, model, **more):
        return make_run(
            tmp_path / f"{name}-{len(more)}", name, KNOWN, LOST, {}, model=model, **more
        )

    unlearned = run("npo", "org/model-1")
    tuned_original = run("tune-mood", "org/model-1", objective={})
    never = run("tune-sums", "/home/me/never", objective={}, other=1)
    attacked = run("tune-x", "/home/me/runs/a/model", objective={}, other=1, another=2)
    table = table_of(unlearned, tuned_original, never, attacked)
    assert sorted(row.label for row in table.rows) == [
        "never", "npo", "original: org/model-1", "tune-x",
    ]  # fmt: skip
    runs, _ = gather([unlearned, tuned_original])
    for name in ("tune-mood", "org/model-1", "original: org/model-1"):
        assert make_table(runs, name).against == "original: org/model-1"


def test_runs_in_folders_of_the_same_name_are_told_apart_without_absolute_paths(tmp_path):
    paths = [defended(tmp_path / folder / "run", strength=i) for i, folder in enumerate("ab")]
    assert [row.label for row in table_of(*paths).rows] == ["npo (a/run)", "npo (b/run)"]


# Columns


def test_the_shares_of_options_are_no_columns(tmp_path):
    path = defended(tmp_path / "a")
    for stage in ("before", "after"):
        found = {m: score(HALF) for m in ("choice_picks_A", "other_acc")}
        known = RunDir(path).scores(stage)
        RunDir(path).write_scores(stage, {**known, **found})
    table = table_of(path)
    assert [key for key in table.columns if "other" in key or "picks" in key] == [
        "other_acc before", "other_acc",
    ]  # fmt: skip
    html = page(table, [])
    assert "before and after" not in html.replace("Answers", "")  # the table has them
    assert '"metric":"choice_picks_A"' in html  # to be explored


# Samples


def with_texts(path, picked=lambda right: int(not right)):
    """The run with texts of every question; the right option is the first."""
    for file in path.glob("examples/*/forget_accuracy.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        lines = [
            json.dumps({
                **row, "prompt": f"Question {row['item']}?", "options": [" yes", " no"],
                "picked": picked(row["value"]), "answer": 0,
                "generated": f"{file.parent.name} {row['item']}",
            })
            for row in rows
        ]  # fmt: skip
        sample = path / "samples" / f"{file.parent.name}.jsonl"
        sample.parent.mkdir(exist_ok=True)
        sample.write_text("\n".join(lines) + "\n")
    return path


def test_three_samples_stand_below_the_verdict(tmp_path):
    before, after = (0, 1, 1, 1, 1, 1, 1, 1), (0, 1, 0, 0, 1, 0, 0, 0)
    attacks = {"mood": tuned(LOST, HALF, MOST, KNOWN)}
    path = with_texts(make_run(tmp_path / "a", "npo", before, after, attacks))
    (row,) = table_of(path).rows
    found = samples(row)
    assert [each.prompt for each in found] == ["Question 2?", "Question 3?", "Question 5?"]
    assert [(s.stage, s.right, s.picked, s.generated) for s in found[0].said] == [
        ("before", True, "yes", "before 2"),
        ("after unlearning", False, "no", "after 2"),
        ("after mood", True, "yes", "mood-end 2"),
    ]
    html = page(table_of(path), [])
    assert "mood-end 5" in html[: html.index("<h2>Models")]
    public = page(table_of(path), [], public=True)
    assert "Question 2?" not in public
    assert "mood-end 5" not in public


def test_after_relearning_there_is_no_sample_since_it_trains_on_answers(tmp_path):
    path = with_texts(defended(tmp_path / "a"), picked=lambda right: " yes" if right else " no")
    (row,) = table_of(path).rows
    first, *_ = samples(row)
    assert [s.stage for s in first.said] == ["before", "after unlearning"]
    assert [s.picked for s in first.said] == ["yes", "no"]


def test_after_relearning_the_samples_are_those_that_its_data_does_not_answer(tmp_path):
    path = with_texts(defended(tmp_path / "a"))
    file = path / "samples" / "relearn-end.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    marked = [{**row, "trained": i != 3} for i, row in enumerate(rows)]
    file.write_text("".join(json.dumps(row) + "\n" for row in marked))
    (row,) = table_of(path).rows
    stages = {each.prompt: [s.stage for s in each.said] for each in samples(row)}
    assert stages[rows[3]["prompt"]][-1] == "after relearn"
    assert [p for p, seen in stages.items() if "after relearn" in seen] == [rows[3]["prompt"]]


def test_runs_without_texts_have_no_samples_and_odd_texts_do_no_harm(tmp_path):
    assert samples(table_of(defended(tmp_path / "a")).rows[0]) == []
    path = with_texts(defended(tmp_path / "b"), picked=lambda right: [None, 7][int(right)])
    (row,) = table_of(path).rows
    assert samples(row)[0].said[0].picked == "7"
    page(table_of(path), [])


# Paths


def test_no_path_on_the_page_is_absolute(tmp_path):
    path = defended(tmp_path / "runs" / "a", model=str(tmp_path / "private" / "model"))
    other = defended(tmp_path / "far" / "away" / "b", "rmu", model="/home/me/secret models/m")
    RunDir(path).write("environment", {"argv": ["unlearn", "--forget", "/home/me/texts.jsonl"]})
    RunDir(other).write("environment", {"argv": ["unlearn", f"--forget={tmp_path}/data/own.jsonl"]})
    broken = defended(tmp_path / "runs" / "broken", done=False)
    RunDir(broken).write("failed", {"error": f"no such file: '{tmp_path}/x/y.jsonl'"})
    (tmp_path / "page").mkdir()
    write_report([path, other, broken], tmp_path / "page" / "report.html")
    html = (tmp_path / "page" / "report.html").read_text()
    assert str(tmp_path) not in html
    assert not re.search(r"/home|secret models/", html)
    assert "--forget texts.jsonl" in html
    assert "--forget=../data/own.jsonl" in html
    assert "ilu rerun ../runs/a --out ../runs/a-again" in html
    assert "no such file: &#39;../x/y.jsonl&#39;" in html


def test_what_is_no_path_stays_as_it_is(tmp_path):
    for text in (
        "and/or",
        "1/2 of it",
        "https://a.b/c/d",
        "org/model",
        "a <b>x</b>",
        "10 / 3",
        "/",
    ):
        assert local(text, tmp_path) == text
    assert local(r"in C:\Users\me\x.py, line 3", tmp_path) == "in x.py, line 3"
    record = {"a": ["/x/y", {"b": 1}], "/x/z": None}
    assert local_record(record, tmp_path) == {"a": ["y", {"b": 1}], "z": None}
