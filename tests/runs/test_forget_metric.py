"""What a report takes for forgetting, where questions are the user's own or WMDP's."""

import json

import pytest

from ilu.recipes.attacks import Attacker, attacked
from ilu.recipes.probes import probes
from ilu.recipes.suite import suite_of
from ilu.recipes.suite_request import SuiteRequest
from ilu.runs.report.curves import forgotten_line
from ilu.runs.report.gather import gather
from ilu.runs.report.page import page
from ilu.runs.report.questions import flips
from ilu.runs.report.table import make_table
from ilu.runs.results.display import displayed
from ilu.runs.results.forget_metric import forget_metric
from ilu.runs.results.run_metrics import gap, read, worst_case
from ilu.runs.run_dir import RunDir
from ilu.system.record import describe
from ilu.system.scores import Score
from ilu.training.fit import Optim
from tests.fabricate import HALF, KNOWN, LOST, MOST, defended, make_run, score, tuned

CHOICE = {"choice_acc": LOST, "choice_picks_A": HALF}


def record(suite="choice", data="q.jsonl", asks="q.jsonl", **asked):
    """The recipe of ``ilu attack --suite SUITE --data DATA --attack noise:3 --probe fewshot``."""
    made = attacked(
        "lab", ["noise:3"], Attacker(optim=Optim(lr=1e-3, steps=1)),
        {suite: suite_of(suite, SuiteRequest(data=data, **asked))},
        probes(SuiteRequest(data=asks), ["fewshot"]) if asks else {}, keep=False,
    )  # fmt: skip
    return json.loads(json.dumps(describe(made)))


def attack_run(path, made, end, after=CHOICE, asked=MOST, **more):
    """A run of ``made`` with these scores and no others."""
    attacks = {"noise-3": {"end": end}, **more}
    make_run(path, "attacks", LOST, LOST, attacks, **{k: made[k] for k in PARTS})
    run = RunDir(path)
    for stage in ("before", "after"):
        run.write_scores(stage, {metric: score(items) for metric, items in after.items()})
    run.write_scores("probes", {"fewshot": score(asked)} if asked else {})
    return path


PARTS = ("objective", "metrics", "probes")


@pytest.mark.parametrize(
    ("made", "metric"),
    [
        (record(), "choice_acc"),
        (record(asks=None), None),  # they may be about what was to be kept
        (record(asks="other.jsonl"), None),
        (record("wmdp", None, None, split="bio"), "wmdp_bio_acc"),
        (record("wmdp", None, None), "wmdp_acc"),
        (record("mmlu", None, None), None),
        (record("lab", None, None), "forget_accuracy"),
        (record("elicit"), "direct_accuracy"),
    ],
)
def test_questions_mean_forgetting_only_if_that_is_known(made, metric):
    scores = ["mmlu_acc", "choice_acc", "wmdp_bio_acc"]
    scores += [metric] if metric in ("wmdp_acc", "forget_accuracy", "direct_accuracy") else []
    assert forget_metric(made, scores) == metric


def test_the_worst_case_of_a_users_questions_has_the_attacks_on_the_weights(tmp_path):
    """By hand: noise leaves 2 of 8 forgotten, few-shot questions 4 of 8."""
    end = {"choice_acc": MOST, "choice_picks_A": LOST}
    table = make_table(gather([attack_run(tmp_path / "a", record(), end, asked=HALF)])[0])
    cells = table.rows[0].cells
    assert (cells["worst_case"].value, cells["worst_case"].note) == (0.25, "noise-3")
    assert cells["forgotten"].value == 1.0
    assert list(table.columns) == ["forgotten", "worst_case"]
    unknown = attack_run(tmp_path / "b", record(asks=None), end, asked=())
    assert list(make_table(gather([unknown])[0]).columns) == ["choice_acc"]


def test_other_metrics_stand_beside_the_headline(tmp_path):
    path = defended(tmp_path / "a")
    for stage, loss in (("before", 1.0), ("after", 4.0)):
        run = RunDir(path)
        found = run.scores(stage)
        run.write_scores(stage, {**found, "forget_nll": score([loss, loss + 2])})
    (row,) = (table := make_table(gather([path])[0])).rows
    assert list(table.columns)[-2:] == ["forget_nll before", "forget_nll"]
    assert row.cells["forget_nll before"].value == 2.0
    assert "<th>forget_nll before</th>" in page(table, [])


def model_of(host, *attackers):
    """Let runs be attacks on the model of ``host``."""
    RunDir(host).write("model", {"model.safetensors": "abc"})
    for path in attackers:
        data = RunDir(path).read("data")
        RunDir(path).write("data", {**data, "model": {"model.safetensors": "abc"}})


def test_attacks_on_a_users_model_bring_their_questions_with_them(tmp_path):
    host = make_run(tmp_path / "host", "npo", KNOWN, LOST, {}, metrics={"forget_nll": {}})
    for stage in ("before", "after"):
        RunDir(host).write_scores(stage, {"forget_nll": score([1.0, 2.0])})
    attack = attack_run(tmp_path / "a", record(), {"choice_acc": MOST})
    model_of(host, attack)
    (row,) = make_table(gather([host, attack])[0]).rows
    assert (row.label, row.cells["forgotten"].value) == ("npo", 1.0)
    assert row.cells["worst_case"].value == 0.25
    lab = defended(tmp_path / "lab", "lab")  # which asks the lab's questions: not the same
    model_of(lab, attack)
    assert [r.label for r in make_table(gather([lab, attack])[0]).rows] == ["attacks", "lab"]


def test_what_asks_other_questions_is_not_better_or_worse(tmp_path):
    right, wrong = (1,) * 400, (0,) * 400
    other = json.loads(json.dumps(record()).replace("q.jsonl", "r.jsonl"))
    runs = []
    for name, made, items in (("a", record(), right), ("b", other, wrong)):
        path = attack_run(tmp_path / name, made, {"choice_acc": items}, {"choice_acc": items})
        RunDir(path).write("recipe", {**RunDir(path).read("recipe"), "objective": {"forget": {}}})
        RunDir(path).write_scores("before", {"choice_acc": score(right)})
        runs.append(path)
    table = make_table(gather(runs)[0])
    assert table.best == {}
    assert gap(*(row.first for row in table.rows)) is None
    same = json.loads((runs[1] / "recipe.json").read_text().replace("r.jsonl", "q.jsonl"))
    RunDir(runs[1]).write("recipe", {**same, "name": "b"})
    table = make_table(gather(runs)[0])
    assert table.best["forgotten"] == "b"
    assert gap(*(row.first for row in table.rows)) is not None


def test_an_attack_after_which_nothing_was_measured_is_named(tmp_path):
    path = defended(tmp_path / "a")
    made = RunDir(path).read("recipe")
    RunDir(path).write("recipe", {**made, "attacks": {**made["attacks"], "noise": {}}})
    RunDir(path).write_scores("noise-end", {})
    text = page(make_table(gather([path])[0]), [])
    assert "Forgetting was not measured after noise: not in the worst case." in text


def test_what_a_relearning_attack_was_shown_does_not_come_back(tmp_path):
    m = read(RunDir(defended(tmp_path / "a")))
    assert flips(m, "mood") == (8, 8, 4)
    assert flips(m, "relearn") is None
    assert worst_case(m)[0] == "relearn"


def test_a_denser_curve_begins_with_the_questions_of_its_attack(tmp_path):
    host = make_run(tmp_path / "host", "npo", KNOWN, HALF, {})
    attack = make_run(
        tmp_path / "mood", "tune-mood", LOST, LOST, {"mood": tuned(LOST, HALF, HALF, KNOWN)},
        objective={},
    )  # fmt: skip
    rows = [{"step": 2, "forget_accuracy": {"value": 0.25}}]
    RunDir(attack).write("curves/mood", rows)
    model_of(host, attack)
    (row,) = make_table(gather([host, attack])[0]).rows
    assert forgotten_line(row, "mood", 0, steps=True).points == [(0.0, 1.0), (2.0, 0.75)]


def test_no_gap_is_marked_as_best(tmp_path):
    """The larger gap belongs to the one that forgot what the control knows as well."""
    right, wrong = (1,) * 400, (0,) * 400
    half = (0, 1) * 200
    runs = [
        make_run(tmp_path / name, name, right, after, {}, utility=(right, right))
        for name, after in (("more", wrong), ("same", half), ("never", half))
    ]
    table = make_table(gather(runs)[0], "never")
    assert {r.label: c.value for r in table.rows if (c := r.cells.get("gap"))} == {
        "more": 0.5, "same": 0.0
    }  # fmt: skip
    assert "gap" not in table.best


def test_both_accuracies_on_the_forget_questions_are_shown_as_forgotten():
    scores = {"own_acc": Score(0.25, 0.1, 4), "own_acc_norm": Score(0.5, 0.1, 4)}
    shown = displayed({**scores, "other_acc": Score(0.75, 0.1, 4)}, "own_acc")
    assert {name: score.value for name, score in shown.items()} == {
        "forgotten": 0.75, "forgotten (per character)": 0.5, "other_acc": 0.75,
    }  # fmt: skip
