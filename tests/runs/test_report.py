"""The report: measures with known answers, rows, marks, formats, and text that is not trusted."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ilu.evals.score import average, difference
from ilu.evals.statistics import wilson
from ilu.methods.masks.storage import save_mask
from ilu.runs.report.curves import forgotten_line
from ilu.runs.report.escape import latex, markdown, printable, script_json, spreadsheet
from ilu.runs.report.formats import FORMATS, to_csv, to_json, to_latex, to_markdown, write_report
from ilu.runs.report.gather import Broken, gather
from ilu.runs.report.mask_agreement import agreements
from ilu.runs.report.names import common_name
from ilu.runs.report.page import LARGEST, page
from ilu.runs.report.paired import comparisons
from ilu.runs.report.questions import flips, recovered, recovery
from ilu.runs.report.records import before_and_after
from ilu.runs.report.sparsity import by_fraction, line_of, mask_figures
from ilu.runs.report.table import make_table
from ilu.runs.results.run_metrics import (
    area,
    gap,
    headline,
    read,
    samples_to_recover,
    worst_case,
    worst_usable_case,
)
from ilu.runs.run_dir import RunDir
from ilu.system.scores import Score
from tests.fabricate import (
    HALF,
    KNOWN,
    LOST,
    MOST,
    QUESTIONS,
    defended,
    make_run,
    recipe,
    relearned,
    score,
    tuned,
)

DEMO = Path(__file__).parents[2] / "results" / "demo"


def table_of(*paths):
    runs, broken = gather(paths)
    assert broken == []
    return make_table(runs)


# Measures


def test_the_headline_of_a_run_is_what_one_computes_by_hand(tmp_path):
    found = headline(read(RunDir(defended(tmp_path / "a"))))
    assert {key: s.value for key, s in found.items() if s} == pytest.approx({
        "forgotten": 1.0,
        "utility": 1.0,
        "utility_change": 0.0,
        "still_forgotten": (1 + 0.5 + 0.5) / 3,
        "area": 0.25 * 1 + 0.25 * 0.75 + 0.5 * 0.5,  # trapezoids from 0, a quarter, half, end
        "task_accuracy": 1.0,
        "worst_case": 0.25,
        "after_relearning": 0.25,
    })  # fmt: skip


def test_a_fine_tuning_that_is_measured_only_at_its_end_counts_with_its_end(tmp_path):
    end = {"mood": {"end": tuned(LOST, LOST, HALF, KNOWN)["end"]}}
    found = headline(read(RunDir(make_run(tmp_path / "a", "npo", KNOWN, LOST, end))))
    assert found["still_forgotten"].value == 0.5
    assert found["worst_case"].value == 0.5
    assert found["area"] is None


def test_relearning_is_judged_by_what_it_does_not_show(tmp_path):
    # All that was shown is back at the quarter; the worst case is the questions about the rest.
    assert worst_case(read(RunDir(defended(tmp_path / "a"))))[0] == "relearn"
    shown_only = {"relearn": relearned(KNOWN, LOST)}
    run = read(RunDir(make_run(tmp_path / "b", "npo", KNOWN, LOST, shown_only)))
    assert worst_case(run)[1].value == 1.0


def test_the_worst_case_looks_at_every_stage(tmp_path):
    attacks = {"mood": tuned(MOST, HALF, LOST, KNOWN)}
    run = read(RunDir(make_run(tmp_path / "a", "npo", KNOWN, LOST, attacks)))
    assert worst_case(run)[1].value == 0.25


def stage(forget, utility, **more):
    return {"forget_accuracy": forget, "utility": utility, **more}


def test_the_worst_usable_case_leaves_out_models_that_lost_too_much_utility(tmp_path):
    """By hand: of 8 questions on utility, 7 right are .875 of the original's, and 8 are all."""
    ninth = (1,) * 7 + (0,)
    attacks = {
        "mood": {
            "quarter": stage(HALF, KNOWN), "half": stage(MOST, ninth), "end": stage(LOST, LOST)
        },
        "relearn": {"end": stage(LOST, ninth, others_accuracy=KNOWN)},
    }  # fmt: skip
    path = make_run(tmp_path / "a", "npo", KNOWN, LOST, attacks)
    m = read(RunDir(path))
    found = {share: worst_usable_case(m, share) for share in (0, 0.875, 0.9)}
    assert {share: (name, s.value) for share, (name, s) in found.items()} == {
        0: ("relearn", 0.0), 0.875: ("relearn", 0.0), 0.9: ("mood", 0.5),
    }  # fmt: skip
    assert worst_case(m)[1].value == 0.0
    (row,) = table_of(path).rows
    assert (row.cells["worst_usable"].value, row.cells["worst_usable"].note) == (0.5, "mood")
    loose = make_table([m], usable=0.5)
    assert loose.rows[0].cells["worst_usable"].value == 0.0
    assert "at least 0.5 of" in loose.columns["worst_usable"]
    with pytest.raises(ValueError, match=r"`usable` 1\.5: it must be"):
        make_table([m], usable=1.5)


def test_the_worst_usable_case_is_empty_if_every_attack_breaks_the_model(tmp_path):
    attacks = {"mood": {point: stage(KNOWN, LOST) for point in ("quarter", "half", "end")}}
    m = read(RunDir(make_run(tmp_path / "a", "npo", KNOWN, LOST, attacks)))
    assert worst_case(m)[1].value == 0.0
    assert worst_usable_case(m) is None
    assert "worst_usable" not in make_table([m]).columns


def test_measurements_between_the_stages_count(tmp_path):
    path = make_run(tmp_path / "a", "npo", KNOWN, LOST, {"mood": tuned(LOST, LOST, LOST, KNOWN)})
    row = {"step": 3, "forget_accuracy": score(HALF)._asdict(), "utility": score(MOST)._asdict()}
    RunDir(path).write("curves/mood", [row])
    m = read(RunDir(path))
    assert worst_case(m)[1].value == 0.5
    assert worst_usable_case(m, 0.7)[1].value == 0.5
    assert worst_usable_case(m, 0.8) is None


def test_the_strongest_relearning_of_several_counts_and_the_fewest_examples(tmp_path):
    attacks = {"few": relearned(LOST, LOST), "many": relearned(HALF, HALF)}
    path = make_run(tmp_path / "a", "npo", KNOWN, LOST, attacks)
    RunDir(path).write("data", {"attack few": {"examples": 5}, "attack many": {"examples": 50}})
    run = read(RunDir(path))
    assert headline(run)["after_relearning"].value == 0.5
    assert samples_to_recover(run) == 50  # 5 bring nothing back, 50 just half


def test_errors_of_means_use_items_where_there_are_some():
    a, b = score([1, 0, 1, 0]), score([0, 1, 0, 1])
    assert average([a, b]) == score([0.5] * 4)  # what one loses the other wins
    bare = [s._replace(items=()) for s in (a, b)]
    assert average(bare) == Score(0.5, pytest.approx(a.stderr), 4)  # an upper bound
    assert difference(a, a).stderr == 0
    assert difference(bare[0], bare[0]).stderr == pytest.approx(2**0.5 * a.stderr)
    assert area([]) is None


# Rows


def test_seeds_of_one_recipe_become_one_row_and_other_settings_do_not(tmp_path):
    seeds = [defended(tmp_path / f"s{i}", seed=i) for i in range(3)]
    worse = make_run(tmp_path / "s3", "npo", KNOWN, HALF, read_attacks(), seed=3)
    other = defended(tmp_path / "other", strength=2)
    again = defended(tmp_path / "again", seed=0)
    table = table_of(*seeds, worse, other, again)
    assert [(row.label, len(row.runs)) for row in table.rows] == [
        ("npo (s0)", 4), ("npo (other)", 1), ("npo (again)", 1),
    ]  # fmt: skip
    found = table.rows[0].cells["forgotten"]
    assert (found.value, found.seeds) == (0.875, 4)
    assert found.stderr == pytest.approx(0.125)  # of 1, 1, 1, 0.5
    assert (found.low, found.high) == pytest.approx((0.875 - 3.182446 * 0.125, 1.0))


def test_a_row_of_seeds_is_called_by_what_its_folders_share(tmp_path):
    seeds = [defended(tmp_path / f"npo-lr=1-seed={i}-abc{i}", seed=i) for i in range(2)]
    other = defended(tmp_path / "npo-lr=2-seed=0-abd", strength=2)
    labels = [row.label for row in table_of(*seeds, other).rows]
    assert labels == ["npo (npo-lr=1)", "npo (npo-lr=2-seed=0-abd)"]
    assert common_name(["a_layer_1_seed_1", "a_layer_1_seed_2"]) == "a_layer_1_seed"
    assert common_name(["npo-seed=0-lr=1", "npo-seed=1-lr=1"]) == "npo-lr=1"
    assert common_name(["s0", "s1"]) == "s0"


def own_data(place):
    """An attacked run on a user's own data, of which no metric is known to mean forgetting."""
    run = RunDir(place)
    stages = {"before": [1.0, 3.0], "after": [5.0, 7.0], "mood-end": [2.0, 4.0]}
    for stage, losses in stages.items():
        run.write_scores(stage, {"nll": score(losses)})
    attacks = {"mood": {"goals": {}, "optim": {"steps": 8}}}
    run.write("recipe", recipe("npo", 0, {}) | {"attacks": attacks, "metrics": {"nll": {}}})
    for name in ("environment", "data"):
        run.write(name, {})
    run.write("done", {"seconds": 1.0})
    return run.path


def test_attacks_are_shown_metric_by_metric_where_none_is_known_to_mean_forgetting(tmp_path):
    """What an attack did to the loss on one's own data is in no other table."""
    rows = table_of(own_data(tmp_path / "own")).rows
    found = {(c.attack, c.metric): (c.before.value, c.after.value) for c in before_and_after(rows)}
    assert found == {("", "nll"): (2.0, 6.0), ("mood", "nll"): (6.0, 3.0)}
    attacked = rows[0].first.recipe | {"objective": {}}
    bare = rows[0]._replace(runs=(replace(rows[0].first, recipe=attacked),))
    assert [c.attack for c in before_and_after([bare])] == ["mood"]  # nothing was unlearned
    known = table_of(defended(tmp_path / "lab")).rows
    assert {c.attack for c in before_and_after(known)} == {""}


def read_attacks():
    return {"mood": tuned(LOST, HALF, HALF, KNOWN), "relearn": relearned(KNOWN, MOST)}


def test_seeds_that_agree_are_no_more_certain_than_their_questions(tmp_path):
    seeds = [defended(tmp_path / f"s{i}", seed=i) for i in range(3)]
    found = table_of(*seeds).rows[0].cells["forgotten"]
    assert (found.value, found.stderr) == (1.0, 0.0)
    assert found.interval == pytest.approx(wilson(1.0, 8))


def test_only_a_value_clear_of_all_others_is_marked_and_never_the_original(tmp_path):
    def run(name, right):
        items = (1,) * right + (0,) * (400 - right)
        return make_run(tmp_path / name, name, (1,) * 400, items, {}, utility=(items, items))

    table = table_of(run("a", 200), run("b", 190), run("original", 400))
    assert table.best == {}
    table = table_of(run("a2", 100), run("b2", 200), tmp_path / "original")
    assert table.best == {"forgotten": "a2", "utility": "b2"}
    assert table.rows[0].label == "original"


def test_a_damaged_model_is_never_best(tmp_path):
    right, wrong = (1,) * 400, (0,) * 400
    tenth = (0,) * 40 + (1,) * 360
    broken = make_run(tmp_path / "a", "broken", right, wrong, {}, utility=(right, wrong))
    modest = make_run(tmp_path / "b", "modest", right, tenth, {}, utility=(right, right))
    none = make_run(tmp_path / "c", "none", right, right, {}, utility=(right, right))
    table = table_of(broken, modest, none)
    assert table.best == {"forgotten": "modest"}
    assert comparisons(table.rows)[0].best == "modest"
    assert "broken</bdi> †" in page(table, [])


def test_without_a_headline_every_metric_has_columns(tmp_path):
    path = make_run(tmp_path / "a", "npo", KNOWN, LOST, {})
    for stage, loss in (("before", 1.0), ("after", 4.0)):
        run = RunDir(path)
        run.write_scores(stage, {"forget_nll": score([loss, loss + 2])})
    table = table_of(path)
    assert list(table.columns) == ["forget_nll before", "forget_nll"]
    assert table.rows[0].cells["forget_nll"].value == 5.0


def test_attacks_carried_out_elsewhere_join_the_run_whose_model_they_attacked(tmp_path):
    host = make_run(tmp_path / "host", "npo", KNOWN, LOST, {})
    attack = make_run(
        tmp_path / "mood", "tune-mood", LOST, LOST, {"mood": tuned(LOST, HALF, HALF, KNOWN)},
        objective={}, metrics={"forget_accuracy": {**QUESTIONS, "count": 4}, "utility": QUESTIONS},
    )  # fmt: skip
    stranger = make_run(tmp_path / "x", "tune-x", LOST, LOST, read_attacks(), objective={})
    RunDir(host).write("model", {"model.safetensors": "abc"})
    for path, model in ((attack, "abc"), (stranger, "def")):
        data = RunDir(path).read("data")
        RunDir(path).write("data", {**data, "model": {"model.safetensors": model}})
    table = table_of(host, attack, stranger)
    assert [row.label for row in table.rows] == ["tune-x", "npo"]
    joined = table.rows[1]
    assert joined.cells["worst_case"].value == 0.5
    assert joined.cells["area"].value == pytest.approx(0.25 * 1 + 0.25 * 0.75 + 0.5 * 0.5)
    html = page(table, [], home=tmp_path)
    assert f"ilu rerun {attack.name} --out {attack.name}-again" in html
    assert str(tmp_path) not in html
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, flags=re.DOTALL)[1])
    values = data[0]["values"]
    assert (values["mood-start"], values["mood-end"]) == ("00000000", "11110000")
    RunDir(attack).write("recipe", {**RunDir(attack).read("recipe"), "metrics": {"utility": {}}})
    assert len(table_of(host, attack).rows) == 2  # other questions by the same name


def test_the_fewest_examples_that_bring_half_back_are_told(tmp_path):
    def recovered(name, few, many):
        path = make_run(tmp_path / name, name, KNOWN, LOST, {"few": few, "many": many})
        RunDir(path).write("data", {"attack few": {"examples": 5}, "attack many": {"examples": 50}})
        return path

    nothing, half = relearned(LOST, LOST), relearned(HALF, HALF)
    rows = table_of(
        recovered("a", nothing, nothing), recovered("b", nothing, half), recovered("c", half, half)
    ).rows
    many = "50 (50 to more than 50)"
    few = "5 or fewer (5 to more than 50)"
    assert recovery(rows) == {"a": "more than 50", "b": many, "c": few}
    knows = make_run(tmp_path / "d", "d", KNOWN, KNOWN, {"few": half, "many": half})
    RunDir(knows).write("data", {f"attack {a}": {"examples": 5} for a in ("few", "many")})
    assert recovery(table_of(knows).rows) == {}  # nothing was forgotten, so nothing comes back


def test_all_can_be_compared_with_a_model_that_is_named(tmp_path):
    paths = [defended(tmp_path / "a", "npo"), make_run(tmp_path / "b", "never", KNOWN, HALF, {})]
    runs, _ = gather(paths)
    after, *_ = comparisons(make_table(runs).rows, "never")
    assert (after.best, after.rows["npo"].value) == ("never", 0.5)
    assert "Difference to <bdi>never</bdi>" in page(make_table(runs, "never"), [])
    with pytest.raises(ValueError, match="no such model here; one of npo, never"):
        make_table(runs, "other")


def test_the_gap_to_a_model_that_never_knew_is_what_an_attack_does_not_teach(tmp_path):
    # Fine-tuning leaves the control at .5 as well; relearning teaches it nothing, and us .75.
    never = {"mood": tuned(LOST, HALF, HALF, KNOWN), "relearn": relearned(HALF, LOST)}
    control = make_run(tmp_path / "n", "never", LOST, LOST, never, objective={})
    seeds = [defended(tmp_path / f"d{seed}", seed=seed) for seed in range(2)]
    runs, _ = gather([control, *seeds])
    table = make_table(runs, "never")
    found = {row.label: row.cells.get("gap") for row in table.rows}
    assert table.columns["gap"] == "gap to never"
    assert found["never"] is None
    assert (found["npo"].value, found["npo"].note) == (-0.75, "relearn")
    assert found["npo"].low < -0.75 < found["npo"].high
    name, alone = gap(runs[1], runs[0])
    assert (name, alone.n) == ("relearn", 8)
    assert alone.stderr == pytest.approx(score(MOST).stderr)  # question by question
    assert "gap" not in make_table(runs).columns
    bare = make_run(tmp_path / "b", "bare", KNOWN, HALF, {})
    assert gap(read(RunDir(bare)), runs[0])[1].value == pytest.approx(-0.5)


def test_ways_of_asking_count_as_attacks(tmp_path):
    path = defended(tmp_path / "a", probes={"asked": QUESTIONS})
    RunDir(path).write_scores("probes", {"few-shot": score(KNOWN), "prefix": score(HALF)})
    table = table_of(path, make_run(tmp_path / "b", "other", KNOWN, HALF, {}))
    npo = table.rows[0]
    assert (npo.cells["worst_case"].value, npo.cells["worst_case"].note) == (0.0, "few-shot")
    html = page(table, [])
    assert "<bdi>few-shot</bdi>" in html
    again = defended(tmp_path / "c", "rmu", probes={"asked": QUESTIONS})
    RunDir(again).write_scores("probes", {"few-shot": score(LOST)})
    told = {c.title: c for c in comparisons(table_of(path, again).rows)}
    assert told["forgotten after few-shot"].best == "rmu"
    assert told["forgotten after few-shot"].rows["npo"].losses == 8


def test_a_denser_curve_is_drawn_where_there_is_one(tmp_path):
    def made(folder, seed, values):
        path = defended(tmp_path / folder, seed=seed)
        rows = [{"step": s, "forget_accuracy": {"value": v}} for s, v in values.items()]
        RunDir(path).write("curves/mood", rows)
        return path

    dense = [made("a", 0, {2: 0.0, 5: 0.5, 8: 0.5}), made("b", 1, {2: 0.25, 8: 0.75})]
    (row,) = table_of(*dense).rows
    line = forgotten_line(row, "mood", 0, steps=True)
    assert line.points == [(0.0, 1.0), (2.0, 0.875), (8.0, 0.375)]  # steps that both seeds have
    (row,) = table_of(defended(tmp_path / "c")).rows
    assert [x for x, _ in forgotten_line(row, "mood", 0, steps=True).points] == [0, 2, 4, 8]


def test_differences_to_the_best_are_tested_on_the_same_questions_only(tmp_path):
    best = defended(tmp_path / "best", "best")
    half = make_run(tmp_path / "half", "half", KNOWN, HALF, read_attacks())
    foreign = make_run(
        tmp_path / "f", "foreign", KNOWN, HALF, read_attacks(), metrics={"forget_accuracy": {}}
    )
    bare = defended(tmp_path / "bare", "bare", items=False)
    after, *_ = comparisons(table_of(best, half, foreign, bare).rows)
    assert (after.title, after.best, list(after.rows)) == (
        "forgotten after unlearning",
        "best",
        ["half"],
    )
    assert after.rows["half"] == pytest.approx((-0.5, 0, 4, 2 / 2**4))


def test_a_question_counts_once_however_many_seeds(tmp_path):
    best = [defended(tmp_path / f"b{i}", "best", seed=i) for i in range(3)]
    half = [make_run(tmp_path / f"h{i}", "half", KNOWN, HALF, {}, seed=i) for i in range(2)]
    after, *_ = comparisons(table_of(*best, *half).rows)
    assert after.rows["half"] == pytest.approx((-0.5, 0, 4, 2 / 2**4))


def test_flips_follow_each_question(tmp_path):
    known = (1, 1, 1, 1, 1, 1, 0, 0)
    attacks = {"mood": tuned(LOST, LOST, (1, 0, 1, 0, 1, 0, 1, 0), KNOWN)}
    path = make_run(tmp_path / "a", "npo", known, (1, 1, 0, 0, 0, 0, 0, 0), attacks)
    assert flips(read(RunDir(path)), "mood") == (6, 4, 2)
    again = make_run(tmp_path / "b", "npo", known, (1, 1, 0, 0, 0, 0, 0, 0), attacks, seed=1)
    assert recovered(table_of(path, again).rows)["npo"]["mood"] == (12, 8, 4)


# What cannot be shown


def test_runs_that_are_not_finished_are_listed_in_every_format(tmp_path):
    good = defended(tmp_path / "runs" / "good")
    defended(tmp_path / "runs" / "stopped", done=False)
    failed = defended(tmp_path / "runs" / "failed", done=False)
    RunDir(failed).write("failed", {"error": "no memory & <b>more</b>"})
    (defended(tmp_path / "runs" / "torn") / "scores" / "after.json").write_text("{")
    RunDir(tmp_path / "runs" / "never").write("failed", {"error": "no model"})
    (tmp_path / "runs" / "begun.partial").mkdir()
    runs, broken = gather([tmp_path / "runs"])
    assert [m.run.path for m in runs] == [good]
    states = {each.place.name: each.state for each in broken}
    assert states["stopped"] == "unfinished: 4 of 4 steps of unlearning, 2 of 2 attacks"
    assert states["failed"] == "failed: no memory & <b>more</b>"
    assert states["never"] == "failed: no model"
    assert states["torn"].startswith("cannot be read: JSONDecodeError")
    assert "first measurement" in states["begun.partial"]
    for write in FORMATS.values():
        text = write(make_table(runs), broken)
        assert all(name in text for name in states)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("mask.json", '{"score": "x", "fraction": 1, "density": {"m": {"0": "<b>"}}}'),
        ("vectors.json", '{"mood": {}}'),
        ("environment.json", "[]"),
        ("done.json", "{}"),
        ("scores/after.json", '{"utility": {"value": NaN, "stderr": 0, "n": 1}}'),
        ("train.jsonl", '{"step": "<script>"}\n'),
    ],
)
def test_a_broken_record_spoils_its_own_run_only(tmp_path, file, content):
    bad = defended(tmp_path / "bad")
    (bad / file).write_text(content)
    runs, broken = gather([bad, defended(tmp_path / "good")])
    assert [m.run.path.name for m in runs] == ["good"]
    assert broken[0].state.startswith("cannot be read")


def test_a_metric_whose_name_leads_out_of_the_run_is_not_read(tmp_path):
    (tmp_path / "outside.jsonl").write_text('{"item": 0, "value": 1}\n')
    bad = defended(tmp_path / "bad")
    scores = {"../../../outside": {"value": 1.0, "stderr": 0.0, "n": 1}}
    (bad / "scores" / "after.json").write_text(json.dumps(scores))
    runs, broken = gather([bad])
    assert runs == []
    assert "leads out of the folder" in broken[0].state
    run = RunDir(bad)
    for act in (lambda: run.append("../outside", {"a": 1}), lambda: run.keep_rows("../outside", 0)):
        with pytest.raises(ValueError, match="leads out of the folder"):
            act()
    assert (tmp_path / "outside.jsonl").read_text() == '{"item": 0, "value": 1}\n'


def test_an_attack_without_a_score_is_named(tmp_path):
    path = defended(tmp_path / "a")
    (path / "scores" / "mood-end.json").unlink()
    _, broken = gather([path])
    assert [each.state for each in broken] == ["attack 'mood' left no score"]


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not a run directory"):
        gather([tmp_path])
    with pytest.raises(ValueError, match=r"the ending must be one of \.html, \.md"):
        write_report([defended(tmp_path / "a")], tmp_path / "report.pdf")


# Formats


def test_the_formats_hold_the_same_numbers(tmp_path):
    table = table_of(DEMO)
    readme, paper = to_markdown(table, []), to_latex(table, [])
    lines = list(csv.DictReader(io.StringIO(to_csv(table, []))))
    found = {(line["model"], line["measure"]): line for line in lines}
    for row in json.loads(to_json(table, []))["rows"]:
        for key, cell in row["cells"].items():
            if key in table.columns:
                assert f"{cell['value']:.3f} ± {cell['stderr']:.3f}" in readme
                assert f"{cell['value']:.3f} $\\pm$ {cell['stderr']:.3f}" in paper
                assert float(found[row["model"], key]["value"]) == cell["value"]
    assert "**0.997 ± 0.002**" in readme
    assert r"\textbf{0.997 $\pm$ 0.002}" in paper


def test_every_format_has_what_attacks_did_to_ones_own_data(tmp_path):
    """6 with an error of 1 after unlearning, 3 after the attack, 3 less for each item."""
    table = table_of(own_data(tmp_path / "own"))
    cells = ["npo", "mood", "nll", "6.000 ± 1.000", "3.000 ± 1.000", "-3.000 ± 0.000"]
    assert f"| {' | '.join(cells)} |" in to_markdown(table, [])
    latex_cells = " & ".join(cells).replace("±", r"$\pm$")
    assert rf"{latex_cells} \\" in to_latex(table, [])
    lines = {line["measure"]: line for line in csv.DictReader(io.StringIO(to_csv(table, [])))}
    line = lines["nll, attack mood, after"]
    assert (float(line["value"]), float(line["stderr"]), line["n"]) == (3.0, 1.0, "2")
    assert float(lines["nll, attack mood, before"]["value"]) == 6.0
    assert float(lines["nll, attack mood, change"]["value"]) == -3.0
    (told,) = json.loads(to_json(table, []))["attacks"]
    values = [told[key]["value"] for key in ("before", "after", "change")]
    assert (told["model"], told["attack"], values) == ("npo", "mood", [6.0, 3.0, -3.0])


def test_the_page_is_the_same_twice_small_and_says_how_to_repeat(tmp_path):
    for name in ("a", "b"):
        write_report([DEMO], tmp_path / f"{name}.html")
    text = (tmp_path / "a.html").read_text()
    assert text == (tmp_path / "b.html").read_text()
    assert len(text.encode()) < 300_000
    assert "http:" not in re.sub(r"http://www\.w3\.org/\S+", "", text)  # SVG's own names
    assert "https:" not in text
    assert "ilu rerun" in text
    assert "made by: ilu demo" in text


def test_a_page_of_many_questions_stays_under_its_limit_and_says_so(tmp_path):
    many = [0.123456 + i for i in range(2000)]
    path = make_run(tmp_path / "a", "npo", many, many, {}, utility=(many, many))
    add_text(path, "x" * 500)
    text = page(table_of(path), [])
    assert len(text.encode()) < LARGEST
    assert re.search(r"at most \d+ questions of each run", text)


def add_text(path: Path, text: str) -> None:
    for file in path.glob("examples/*/forget_accuracy.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        lines = [
            json.dumps({**row, "text": text, "answer": f"{text} {file.parent.name}"})
            for row in rows
        ]
        file.write_text("\n".join(lines) + "\n")


def test_few_questions_seeds_and_lost_utility_are_said_plainly(tmp_path):
    path = defended(tmp_path / "a", utility=(KNOWN, (0, 0, 0, 0, 0, 0, 0, 1)))
    text = page(table_of(path), [])
    for warning in ("One seed", "rest on 8 items", "Attacks tried: 2", "damaged model"):
        assert warning in text
    two = [make_run(tmp_path / f"b{i}", "npo", KNOWN, LOST, {}, seed=i) for i in range(2)]
    text = page(table_of(*two), [])
    assert "2 seeds are too few" in text
    assert "No attack was measured" in text


def test_a_mask_becomes_a_heat_map_with_blocks_in_order(tmp_path):
    path = defended(tmp_path / "a")
    density = {"mlp.down_proj": {"10": 0.5, "2": 0.25}, "embed_tokens": {"-": 0.125}}
    sizes = {"0.5": 1.5e-7, "0.9": 4e-6}
    mask = {"score": "wagle", "fraction": 0.3, "density": density, "quantiles": sizes}
    RunDir(path).write("mask", mask)
    text = page(table_of(path), [])
    grid = text[text.index('class="mask"') :]
    assert "50% below 1.5e-07; 90% below 4e-06." in text
    assert re.findall(r"<bdi>(\d+|outside)</bdi></th>", grid) == ["2", "10", "outside"]
    assert re.findall(r"--share:([\d.]+)", grid[: grid.index("</table>")]) == [
        "0.25",
        "0.5",
        "0.125",
    ]
    assert "wagle" in text
    assert 'class="mask"' not in page(table_of(defended(tmp_path / "b")), [])


def masked(path: Path, name: str, model: str, **bits: list[int]) -> Path:
    """A run with a mask of the model ``model``."""
    make_run(path, name, KNOWN, LOST, {})
    mask = {f"model.layers.0.{n}.weight": torch.tensor(b).bool() for n, b in bits.items()}
    save_mask(path / "mask.safetensors", mask.items(), {"model": model})
    shown = {"score": "snip", "fraction": 0.5, "density": {"mlp": {"0": 0.5}}, "quantiles": None}
    RunDir(path).write("mask", shown)
    return path


def test_masks_of_several_runs_stand_beside_chance(tmp_path):
    """By hand: up agrees on one of three, and chance gives 2 * 2 / 8 of them; down agrees."""
    up, other = [1, 1, 0, 0, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0, 0, 0]
    first = masked(tmp_path / "a", "npo", "same", up=up, down=[1, 0])
    second = masked(tmp_path / "b", "rmu", "same", up=other, down=[1, 0])
    third = masked(tmp_path / "c", "dpo", "another", up=up, down=[1, 0])
    (pair,) = agreements(table_of(first, second, third).rows)
    assert {pair.first, pair.second} == {"npo", "rmu"}
    assert (pair.modules["up"].iou, pair.modules["down"].iou) == (1 / 3, 1)
    assert pair.modules["up"].chance_iou == 0.5 / 3.5
    assert (pair.modules["all"].both, pair.modules["all"].either) == (2, 4)
    text = page(table_of(first, second), [])
    grid = text[text.index('class="agreements"') :]
    cells = re.findall(r"<td>([\d.]+) <span class=\"dim\">([\d.]+)", grid)
    assert cells[0] == ("0.500", "0.200")  # all: 2 of 4, by chance 1 of 5
    assert ("0.333", "0.143") in cells
    assert 'class="agreements"' not in page(table_of(first, third), [])


def sparse(path: Path, score: str, fraction: float, known: int, seed: int = 0) -> Path:
    """A run of npo with a mask, after which ``known`` of eight answers are still right."""
    make_run(path, "npo", KNOWN, right(known), {}, seed=seed, mask=f"{score}{fraction}{seed}")
    record = {"score": score, "fraction": fraction, "density": {}, "quantiles": None}
    RunDir(path).write("mask", record)
    return path


def right(known: int) -> tuple[int, ...]:
    """Eight answers, the first ``known`` of them right."""
    return (1,) * known + (0,) * (8 - known)


def test_what_masks_do_is_drawn_against_their_fraction(tmp_path):
    """By hand: forgotten 1/4 and 3/4 at a half, 0 at a tenth, and 1/2 without a mask."""
    runs = [
        sparse(tmp_path / "a", "Wagle", 0.5, 6),
        sparse(tmp_path / "b", "Wagle", 0.5, 2, seed=1),
        sparse(tmp_path / "c", "Wagle", 0.1, 8),
        sparse(tmp_path / "d", "Random", 0.5, 4),
        make_run(tmp_path / "e", "npo", KNOWN, right(4), {}),
    ]
    rows = table_of(*runs).rows
    found = by_fraction([m for row in rows for m in row.runs])
    assert {s: {f: len(ms) for f, ms in line.items()} for s, line in found.items()} == {
        "Wagle": {0.5: 2, 0.1: 1, 1.0: 1}, "Random": {0.5: 1, 1.0: 1}
    }  # fmt: skip
    numbers = {f: [headline(m) for m in ms] for f, ms in found["Wagle"].items()}
    line = line_of(0, "forgotten", numbers)
    assert line is not None
    assert line.points == [(0.1, 0.0), (0.5, 0.5), (1.0, 0.5)]
    assert line.error == pytest.approx([0, 0.25, 0])
    assert line_of(0, "still_forgotten", numbers) is None  # nothing was fine-tuned
    panels = mask_figures(rows)
    assert [p.title for p in panels] == ["npo: forgotten", "npo: utility"]
    assert {e.name: e.style for e in panels[0].legend} == {"Random": 0, "Wagle": 1}
    assert "share of the weights" in page(table_of(*runs), [])
    assert mask_figures(table_of(*runs[:2]).rows) == []  # one fraction is no curve


def test_a_damaged_mask_fails_its_own_run_alone(tmp_path):
    runs = [masked(tmp_path / n, n, "same", up=[1, 0]) for n in ("a", "b")]
    (runs[0] / "mask.safetensors").write_bytes(b"nothing")
    found, broken = gather(runs)
    assert [m.run.path for m in found] == [runs[1]]
    assert "not a safetensors file" in broken[0].state


# Text that is not trusted

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    '" onmouseover="alert(3)" x="',
    "<img src=x onerror=alert(4)>",
    "<!--<script>",
    "]]>&lt;svg onload=alert(5)&gt;",
    "$\\frac{a}{$ | `code` | *x*",
    "=cmd()|x",
    "_hidden",
    "lone \ud800 half \udfff, \x00 control \x1b, \u202eturned",
)


def hostile_run(path: Path, text: str) -> Path:
    """A run with the text wherever a name or an answer can stand."""
    attack = re.sub("[/\\x00\ud800-\udfff]", "-", text)  # it is part of a file's name
    make_run(path, "npo", KNOWN, LOST, {attack: tuned(LOST, HALF, HALF, KNOWN)})
    add_text(path, text)
    angles = {"ft_after_u__u": 0.5, "ft_after_u__ft": None, "u__ft": None}
    recipe = json.loads((path / "recipe.json").read_text())
    for name, value in {
        "recipe": {**recipe, "name": text},
        "mask": {"score": text, "fraction": 0.5, "density": {text: {text: 0.5}}},
        "environment": {"commit": text, "dirty": False, "argv": [text]},
        "data": {text: text},
        "vectors": {text: angles},
    }.items():
        (path / f"{name}.json").write_text(json.dumps(value))
    (path / "train.jsonl").write_text(json.dumps({"step": 0, text: 1.0}) + "\n")
    return path


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_becomes_markup(tmp_path, text):
    runs, broken = gather([hostile_run(tmp_path / "run", text)])
    table = make_table(runs)
    assert broken == []
    broken = [Broken(Path(text.replace("\x00", "")), text)]
    html = page(table, broken)
    html.encode()  # nothing that cannot be saved
    assert html.count("<script") == html.count("</script") == 2  # the data and ours
    assert not re.search(r"<img|<!--|<svg onload|<[^<>]* on\w+=", html)
    data = re.search(r'id="data">(.*?)</script>', html, flags=re.DOTALL)[1]
    assert "<" not in data
    assert json.loads(data)[0]["texts"]["after"][0]["text"] == printable(text)
    for write in (to_markdown, to_latex, to_csv, to_json):
        write(table, broken).encode()


def test_markup_of_documents_and_spreadsheets_is_escaped():
    assert markdown("a|b <i> *c* [x](y)") == r"a\|b &lt;i> \*c\* \[x\](y)"
    assert markdown("two\nlines") == "two lines"
    assert latex(r"50% & \x_y ~ {z}") == (r"50\% \& \textbackslash{}x\_y \textasciitilde{} \{z\}")
    assert [spreadsheet(t) for t in ("=1+1", "@x", "-1", "npo")] == ["'=1+1", "'@x", "'-1", "npo"]


def test_data_inside_a_script_element_cannot_end_it():
    text = script_json({"</script>": "<!-- & \ud800"})
    assert text == '{"\\u003c/script\\u003e":"\\u003c!-- \\u0026 \\ufffd"}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        script_json(float("nan"))


def evaluation(path, value=0.25, name="a<script>"):
    first = {"forget_rouge": {"value": value, "stderr": 0.01, "n": 40}, "weights": "abc"}
    second = {"forget_quality": {"value": 0.5, "stderr": 0.0, "n": 30}}
    record = {"suite": "tofu", "models": {name: first, "b": second}}
    path.write_text(json.dumps(record))
    return path


def test_files_of_scores_become_a_table_of_models(tmp_path):
    write_report([evaluation(tmp_path / "s.json")], tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    part = text[text.index("Scores:") :]
    head = re.findall(r"<th>(?:<bdi>)?(.*?)<", part)
    assert head[:4] == ["metric", "a&lt;script&gt;", "b", "n"]
    (rouge,) = re.findall(r"<tr[^>]*><td[^>]*><bdi>forget_rouge.*?</tr>", part)
    assert "0.250" in rouge
    assert "<td>-</td>" in rouge
    assert rouge.endswith("<td>40</td></tr>")
    assert "There is no run" not in text


@pytest.mark.parametrize("bad", ["{", "[]", '{"models": {"a": {"m": {"value": NaN}}}}'])
def test_files_that_are_no_scores_are_refused(tmp_path, bad):
    (tmp_path / "s.json").write_text(bad)
    with pytest.raises(ValueError, match=r"s\.json is not a score file"):
        write_report([tmp_path / "s.json"], tmp_path / "r.html")
    with pytest.raises(ValueError, match="on the page only"):
        write_report([evaluation(tmp_path / "t.json")], tmp_path / "r.md")
    assert not list(tmp_path.glob("r.*"))
