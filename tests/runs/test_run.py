"""Recipes end to end on a two-layer random Llama with a real tokenizer."""

import json
import os
import signal
from dataclasses import replace
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from ilu.attacks.finetune import FineTune
from ilu.cli.main import run as command
from ilu.data.stream import Feed, check_lengths
from ilu.evals.metrics.multiple_choice import Choice
from ilu.lab.sources import Documents, Facts, TaskTest, TaskTrain
from ilu.methods.retain.likelihood import NLL
from ilu.methods.robust.sam import SAM
from ilu.models.load import fingerprint_model, load_model, read_weights
from ilu.recipes.build import arguments, build, field_names
from ilu.recipes.names import names, parse_name
from ilu.recipes.registry import endings, methods, stages
from ilu.runs.recipe import read_recipe
from ilu.runs.report.formats import write_report
from ilu.runs.report.gather import gather
from ilu.runs.results.display import COLUMNS
from ilu.runs.results.summary import model_summary, summarise, write_angles
from ilu.runs.run import Options, run
from ilu.runs.run_dir import RunDir
from ilu.runs.sweep import local
from ilu.runs.sweep.worker import STOPPED, Conditions
from ilu.system.errors import Stopped
from ilu.system.record import describe, differences, restore
from ilu.training.fit import Optim
from ilu.training.objective import Plain
from ilu.training.schedules import Ramp
from ilu.types import Example
from tests.build import OwnRule

OWN = {"steps": 3, "lr": 1e-3, "batch_size": 2, "environment_batch_size": 2, "limit": 4}


def recipe(folder, name="npo-ilu", **settings):
    data = {"forget": (str(folder / "forget.jsonl"),), "retain": str(folder / "retain.jsonl")}
    environment = (str(folder / "environment.jsonl"),)
    given = {"model": str(folder / "model"), **data, "environment": environment, **OWN}
    return build(name, {"published": True, **given, **small(name), **settings})


def small(name):
    """Settings that fit a model of two blocks and four examples."""
    fitting = {
        "layer": 1, "layers": (0, 1), "reinforce_steps": 2, "reinforce_batch": 2,
        "attack_layer": 0, "attack_steps": 2, "inner_steps": 2, "inner_every": 1,
        "adversary_steps": 1,
    }  # fmt: skip
    known = settings_of(parse_name(name))
    return {k: v for k, v in fitting.items() if k in known}


def settings_of(found):
    robust = field_names(endings()[found.robust].settings) if found.robust else []
    return {*arguments(methods()[found.method].recipe), *robust}


def test_every_name_can_be_built_and_recorded(folder):
    for name in (n for n in names() if n.stage is None):
        made = recipe(folder, str(name))
        assert made.name == str(name)
        assert restore(describe(made)) == made


@pytest.mark.parametrize("stage", stages())
def test_every_method_can_be_followed_by_every_stage(stage, folder):
    for method in methods():
        made = recipe(folder, f"{method}-{stage}", distil=str(folder / "environment.jsonl"))
        assert made.name == f"{method}-{stage}"
        assert made.distillation() is not None
        assert restore(describe(made)) == made


OUR = [name for name, method in methods().items() if not method.settings]  # others: test_published
ALONE = [f"{m}{ending}" for m in OUR for ending in ("", "-sam-ilu")]
ROBUSTLY = [f"npo-{ending}" for ending in (*endings(), "ilu", "control", "lat-control")]
ROBUSTLY += ["dpo-lat", "repnoise-lat", "rmu-tar"]


@pytest.mark.parametrize("name", [*ALONE, *ROBUSTLY])
@pytest.mark.filterwarnings("ignore:the gradient of the forget term", "ignore:`beta` 4.5 is too")
def test_every_recipe_runs_is_recorded_and_can_be_loaded(name, folder, tmp_path):
    made = recipe(folder, name)
    out = run(made, tmp_path / "run")
    rows = out.rows("train")
    assert [r["step"] for r in rows] == [0, 1, 2]
    assert set(rows[0]) == {"step", "lr", "grad_norm", *made.objective}
    assert ("invariance" in rows[0]) == name.endswith(("-ilu", "-control"))
    assert set(out.scores("after")) == {
        "forget_nll", "retain_nll", "environment_nll", "degenerate",
    }  # fmt: skip
    assert restore(out.read("recipe")) == made
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    changed = [n for n, p in loaded.named_parameters() if not torch.equal(p, start(folder)[n])]
    assert changed
    assert "rmu" not in name or all("down_proj" in n for n in changed)


def test_slow_metrics_are_measured_before_and_after_unlearning_but_not_during_attacks(
    folder, tmp_path
):
    made = recipe(folder, "npo")
    assert set(made.slow_metrics) == {"degenerate"}
    attack = FineTune(made.data["retain"], Optim(lr=1e-3, steps=4))
    out = run(replace(made, attacks={"retain": attack}), tmp_path / "run")
    for stage in ("before", "after"):
        assert set(out.scores(stage)) == {*made.metrics, "degenerate"}
    for stage in ("quarter", "half", "end"):
        assert set(out.scores(f"retain-{stage}")) == set(made.metrics)


def test_topics_share_the_weight_and_are_steered_apart(folder, tmp_path):
    topics = tuple(str(folder / f"{k}.jsonl") for k in ("forget", "environment"))
    made = recipe(folder, "rmu-sam", forget=topics)
    first, second = (made.objective[n] for n in ("forget", "forget2"))
    assert first.weight == second.weight == 0.5
    assert (first.loss.topic, second.loss.topic) == (0, 1)
    assert type(first.rule) is type(second.rule) is SAM
    out = run(made, tmp_path / "run")
    assert set(out.scores("after")) >= {"forget_nll", "forget2_nll", "retain_nll"}


def test_adversaries_and_masks_know_every_topic(folder):
    topics = tuple(str(folder / f"{k}.jsonl") for k in ("forget", "environment"))
    for name in ("graddiff-tar", "graddiff-mudman"):
        made = recipe(folder, name, forget=topics)
        assert [made.objective[n].rule.adversary for n in ("forget", "forget2")] == list(made.data)[
            :2
        ]
    masked = recipe(folder, "finetune", forget=topics, mask="wagle:0.9")
    assert set(masked.data) == {"forget", "forget2", "retain"}


def test_looking_ahead_is_along_one_environment(folder):
    two = (str(folder / "environment.jsonl"), str(folder / "retain.jsonl"))
    with pytest.raises(ValueError, match="-lookahead uses one environment, and 2 were"):
        recipe(folder, "npo-lookahead", environment=two)


def test_weight_arithmetic_does_not_follow_rounded_weights(folder):
    with pytest.raises(ValueError, match="weight arithmetic cannot follow adamw-bf16"):
        recipe(folder, "task-vector", optimizer="adamw-bf16")


def test_only_data_that_is_read_is_asked_for(folder):
    assert set(recipe(folder, "ascent", retain=None).data) == {"forget"}
    assert set(recipe(folder, "ascent-mudman").data) == {"forget", "retain"}
    assert set(recipe(folder, "l1-sparse-tar").data) == {"retain", "forget"}
    assert set(recipe(folder, "l1-sparse-lookahead").data) == {"retain", "environment"}
    with pytest.raises(ValueError, match="`retain` is missing"):
        recipe(folder, "ascent-mudman", retain=None)


def test_settings_that_do_nothing_are_warned_of(folder):
    with pytest.warns(UserWarning, match="reading, scale_free does nothing in 'npo'"):
        recipe(folder, "npo", reading="logits", scale_free=False)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("npo-tar", {"inner_steps": 2, "inner_every": 3}, "`inner_every` 3"),
        ("npo-mudman", {"adversary_steps": 0}, "`adversary_steps` 0"),
        ("npo-lat", {"attack_steps": 0}, "`attack_steps` 0"),
        ("npo-sam", {"rho": -1.0}, "`rho` -1"),
        ("npo-rs", {"samples": 0}, "`samples` 0: random smoothing needs at least 1"),
        ("npo-wa", {"last": 0.0}, "`last` 0"),
        ("npo-ilu", {"strength_warmup": -1}, "`strength_warmup` -1"),
        ("npo-ilu", {"strength": -1.0}, "`strength` -1: it must be at least 0"),
        ("npo-gp", {"radius": 0.0}, "`radius` 0: it must be above 0"),
        ("npo-cr", {"mu": 0.0}, "`mu` 0: it must be above 0"),
        ("l1-sparse", {"lora_rank": 2}, "leave out `lora_rank`"),
    ],
)
def test_impossible_settings_are_refused(name, settings, message, folder):
    with pytest.raises(ValueError, match=message):
        recipe(folder, name, **settings)


def test_counterparts_must_fit_the_context_too():
    long = Example([1, 2], 1, (Example(list(range(9)), 1),))
    with pytest.raises(ValueError, match="the longest has 9"):
        check_lengths([long], 8, "--forget")


def test_a_loss_that_no_trained_weight_changes_is_refused(folder, tmp_path):
    """RMU steers what block 0 puts out; block 1 comes after it."""
    for perturbed in (None, "."):
        made = recipe(folder, "rmu", layer=0, parameters=r"layers\.1\.", perturbed=perturbed)
        with pytest.raises(ValueError, match=r"'forget' does not depend on any weight that"):
            run(made, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "is not a recipe"),
        ("no", "is damaged"),
        ('{"type": "ilu.training.fit:Optim", "lr": 1, "steps": 1, "z": 1}', "'z'"),
    ],
)
def test_a_recipe_that_cannot_be_read_says_which_file(text, message, tmp_path):
    (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(ValueError, match=rf"recipe.json.*{message}"):
        read_recipe(tmp_path / "recipe.json")


def test_a_warmup_longer_than_the_run_is_warned_of(folder, tmp_path):
    with pytest.warns(UserWarning, match="a warmup of 9 steps in a run of 2"):
        run(recipe(folder, "npo", steps=2, warmup=9), tmp_path / "run")


def test_what_unlearning_costs_is_kept(folder, tmp_path):
    out = run(recipe(folder), tmp_path / "run")
    assert 0 < out.read("cost")["seconds"] < out.read("done")["seconds"]
    assert run(recipe(folder), tmp_path / "run", Options(resume=True)).read("cost") == out.read(
        "cost"
    )


def test_a_pool_outlives_its_runs(folder, tmp_path):
    """A run that fails, one whose process is killed, and one that works."""
    jobs = {tmp_path / n: recipe(folder, "npo") for n in ("good", "bad")}
    jobs[tmp_path / "bad"] = replace(jobs[tmp_path / "bad"], model="no-such-model")
    found = {o.path.name: o.error for o in local.run_all(jobs, workers=2)}
    assert found["good"] is None
    assert "no-such-model" in found["bad"]
    (failed,) = gather([tmp_path])[1]
    assert (failed.place.name, failed.state) == ("bad", f"failed: {found['bad']}")
    jobs[tmp_path / "bad"] = jobs[tmp_path / "good"]
    assert [o.error for o in local.run_all(jobs, workers=2)] == [None, None]
    assert len(gather([tmp_path])[0]) == 2
    assert [o.error for o in local.run_all(jobs, workers=1, stop=lambda: True)] == [None, None]
    jobs[tmp_path / "more"] = jobs[tmp_path / "good"]
    with pytest.raises(Stopped):
        list(local.run_all(jobs, workers=1, stop=lambda: True))
    server = forkserver._forkserver._forkserver_pid
    os.kill(server, signal.SIGTERM)  # as a signal to the whole group does
    record = describe(jobs[tmp_path / "good"])
    killed = local.start(tmp_path / "killed", record, Conditions())
    killed.process.kill()
    killed.process.join()
    assert "code -9" in local.outcome(killed).error
    assert os.waitpid(server, os.WNOHANG) == (0, 0)
    asked = local.start(tmp_path / "asked", record, Conditions())
    asked.process.terminate()  # before it can hear
    asked.process.join()
    assert local.outcome(asked).error == STOPPED


def test_averaging_is_over_the_last_fifth(folder):
    assert recipe(folder, "npo-wa", steps=125).optim.average_from == 100


def test_the_control_is_the_penalty_without_the_square(folder):
    penalised, control = (recipe(folder, f"npo-{e}", strength=2.0) for e in ("ilu", "control"))
    ours, theirs = (made.objective["invariance"] for made in (penalised, control))
    assert (ours.on, ours.weight) == (theirs.on, theirs.weight) == ("environment", 2.0)
    assert isinstance(theirs.loss, NLL)
    assert theirs.rule == Plain()


def test_a_strength_can_grow_and_be_free_of_scale(folder, tmp_path):
    made = recipe(folder, "npo-ilu", strength=0.5, strength_warmup=2, scale_free=True)
    term = made.objective["invariance"]
    assert (term.weight, term.relative_to) == (Ramp(0.0, 0.5, 2), "forget")
    assert len(run(made, tmp_path / "run").rows("train")) == 3


def test_negation_makes_the_forget_set_less_likely(folder, tmp_path):
    out = run(recipe(folder, "task-vector", steps=20, alpha=1.0), tmp_path / "run")
    before, after = (out.scores(s)["forget_nll"].value for s in ("before", "after"))
    assert after > before


def start(folder):
    return read_weights(folder / "model")


@pytest.mark.parametrize("reading", ["logits", "parameters", "tensors", "elementwise", "gradient"])
def test_every_reading_runs_and_moves_the_weights_its_own_way(reading, folder, tmp_path):
    plain = run(recipe(folder, "npo"), tmp_path / "plain")
    out = run(recipe(folder, reading=reading, strength=10.0), tmp_path / reading)
    assert all(r["invariance"] > 0 for r in out.rows("train"))
    assert weights(plain) != weights(out)


@pytest.mark.parametrize(
    "given",
    [{"layerwise": True}, *({"directions": "forget", "reading": r} for r in ("parameters",
     "tensors", "elementwise"))],
)  # fmt: skip
def test_what_w_scales_and_how_layers_count_change_the_run(given, folder, tmp_path):
    usual = {k: v for k, v in given.items() if k == "reading"}
    plain = run(recipe(folder, strength=10.0, **usual), tmp_path / "plain")
    out = run(recipe(folder, strength=10.0, **given), tmp_path / "out")
    assert weights(plain) != weights(out)


def test_directions_of_several_topics_are_those_of_all(folder):
    both = [str(folder / "forget.jsonl"), str(folder / "retain.jsonl")]
    made = recipe(folder, "npo-ilu", forget=both, directions="forget", reading="tensors")
    assert made.objective["invariance"].rule.adversaries == ("forget", "forget2")
    assert "forget2" in made.data


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"directions": "forget"}, "in the reading gradient w scales no weights"),
        ({"directions": "forget", "reading": "logits"}, "choose parameters, tensors or elem"),
        ({"layerwise": True, "reading": "logits"}, "no gradients of weights"),
    ],
)
def test_what_has_no_meaning_in_a_reading_is_refused(given, said, folder):
    with pytest.raises(ValueError, match=said):
        recipe(folder, "npo-ilu", **given)


def test_there_must_be_something_to_forget_for_its_directions(folder):
    with pytest.raises(ValueError, match="has no forget data"):
        recipe(folder, "finetune-ilu", forget=(), directions="forget", reading="tensors")


def weights(out):
    return {n: w.tolist() for n, w in read_weights(out.path / "model").items()}


def test_zero_strength_changes_nothing(folder, tmp_path):
    off = run(recipe(folder, "npo"), tmp_path / "off")
    zero = run(recipe(folder, strength=0.0), tmp_path / "zero")
    assert weights(off) == weights(zero)


def test_a_run_is_reproducible_to_the_byte_also_from_its_record(folder, tmp_path):
    first = run(recipe(folder), tmp_path / "a")
    again = run(restore(first.read("recipe")), tmp_path / "b")
    for file in ("train.jsonl", "recipe.json", "data.json", "model/model.safetensors"):
        assert (first.path / file).read_bytes() == (again.path / file).read_bytes(), file


def test_several_environments_are_several_penalties(folder, tmp_path):
    two = (str(folder / "environment.jsonl"), str(folder / "retain.jsonl"))
    out = run(recipe(folder, environment=two), tmp_path / "run")
    assert {"invariance", "invariance2"} <= set(out.rows("train")[0])


@pytest.mark.parametrize("every", [None, 1])
def test_an_interrupted_run_resumes_to_the_same_bytes(every, folder, tmp_path, monkeypatch):
    whole = run(recipe(folder, steps=5), tmp_path / "whole")
    seen: list[int] = []
    options = Options(
        save_every=every, progress=lambda n, d, t: seen.append(d), stop=lambda: len(seen) == 2
    )
    monkeypatch.setattr("ilu.runs.run.peak_memory", lambda: 7)
    with pytest.raises(Stopped):
        run(recipe(folder, steps=5), tmp_path / "half", options)
    monkeypatch.setattr("ilu.runs.run.peak_memory", lambda: 5)
    assert not (tmp_path / "half" / "model").exists()
    first = RunDir(tmp_path / "half").read("cost")
    half = run(recipe(folder, steps=5), tmp_path / "half", Options(resume=True))
    cost = half.read("cost")  # of both sessions
    assert cost["seconds"] > first["seconds"] > 0
    assert half.read("done")["seconds"] == cost["total_seconds"] > first["total_seconds"]
    assert cost["peak_memory_bytes"] == half.read("done")["peak_memory_bytes"] == 7
    for file in ("train.jsonl", "model/model.safetensors"):
        assert (whole.path / file).read_bytes() == (half.path / file).read_bytes(), file
    assert not (half.path / "checkpoints").exists()
    assert run(recipe(folder, steps=5), half.path, Options(resume=True)) == half


def test_a_run_is_never_overwritten_nor_resumed_with_other_settings(folder, tmp_path):
    run(recipe(folder), tmp_path / "run")
    with pytest.raises(ValueError, match="exists already: choose another `out`"):
        run(recipe(folder), tmp_path / "run")
    (tmp_path / "run" / "done.json").unlink()
    with pytest.raises(ValueError, match=r"recipe\.optim\.lr: 0\.001 -> 0\.5"):
        run(recipe(folder, lr=0.5), tmp_path / "run", Options(resume=True))


WRONG = [
    ({"forget": "none.jsonl"}, "none.jsonl does not exist"),
    ({"forget": None}, "`forget` is missing"),
    ({"environment": ()}, "needs at least one `environment`"),
    ({"batch_size": 5}, "`forget`: 4 examples cannot fill a batch of 5"),
    ({"model": "nowhere"}, "model 'nowhere' is no folder and no hub id"),
    ({"mask": "mask.safetensors"}, r"mask\.safetensors does not exist"),
    ({"colour": "red"}, "has no setting 'colour'"),
    ({"beta": 0.0}, "`beta` 0: it must be above 0"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_what_is_wrong_is_said_before_anything_is_written(settings, message, folder, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(recipe(folder, **settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_layer_out_of_range_is_found_before_the_folder_is_made(folder, tmp_path):
    with pytest.raises(ValueError, match=r"2 blocks|no weight name matches"):
        run(recipe(folder, "rmu", layer=2), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_too_long_rows_are_counted_and_cut_only_when_told(folder, tmp_path):
    (tmp_path / "long.jsonl").write_text('{"text": "a b c"}\n' + '{"text": "%s"}\n' % ("x y " * 90))
    long = str(tmp_path / "long.jsonl")
    with pytest.raises(ValueError, match=r"`forget`: 1 of 2 rows are longer than the model's 64"):
        run(recipe(folder, forget=long), tmp_path / "run")
    run(recipe(folder, forget=long, truncate=64), tmp_path / "run")


def test_overlap_is_warned_of_with_the_count(folder, tmp_path):
    same = recipe(folder, retain=str(folder / "forget.jsonl"))
    with pytest.warns(UserWarning, match="4 retain examples are in the forget set"):
        run(same, tmp_path / "run")


@pytest.mark.parametrize("name", ["nppo", "npo-irm", "-ilu", ""])
def test_unknown_recipes_suggest_the_nearest(name):
    with pytest.raises(ValueError, match=f"unknown recipe {name!r}") as error:
        parse_name(name)
    assert ("did you mean 'npo" in str(error.value)) == name.startswith("n")


def attacked(folder, name):
    def tune(task):
        feed, goal = Feed(TaskTrain(task, 40), 4), {"task_accuracy": Choice(TaskTest(task, 8))}
        return FineTune(feed, Optim(lr=1e-3, steps=4), goal)

    others = {"others_accuracy": Choice(Facts("agents", start=100, count=8))}
    relearn = FineTune(Feed(Documents("agents", stop=2), 4), Optim(lr=1e-3, steps=2), others)
    metrics = {
        "forget_accuracy": Choice(Facts("agents", count=8)),
        "utility": Choice(Facts("people", count=8)),
    }
    return replace(
        recipe(folder, "npo"),
        name=name,
        metrics=metrics,
        slow_metrics={},
        attacks={"mood": tune("mood"), "relearn": relearn},
        keep_attacked=True,
    )


@pytest.fixture(scope="module")
def two_runs(folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    original = replace(attacked(folder, "original"), objective={}, optim=Optim(lr=1, steps=0))
    runs = [run(original, place / "o"), run(attacked(folder, "<b>npo</b>"), place / "n")]
    for each in runs:
        write_angles(each, runs[0])
    return runs


def test_attacks_start_from_the_unlearned_weights_and_are_measured_on_the_way(two_runs):
    _, out = two_runs
    stages = [f"{a}-{s}" for a in ("mood", "relearn") for s in ("quarter", "half", "end")]
    assert out.stages() == ["before", "after", *stages]
    assert set(out.scores("mood-end")) == {"forget_accuracy", "utility", "task_accuracy"}
    assert set(out.scores("mood-half")) == {"forget_accuracy", "utility"}
    assert len((out.path / "examples/after/utility.jsonl").read_text().splitlines()) == 8
    answered = {q.prompt for q in Facts("agents", start=100, count=8)()}
    relearned = {each["prompt"]: each["trained"] for each in out.rows("samples/relearn-end")}
    assert relearned == {prompt: prompt not in answered for prompt in relearned}
    assert all("trained" not in each for each in out.rows("samples/mood-end"))


def test_the_original_is_not_copied_and_its_undefined_angles_are_null(two_runs):
    original, out = two_runs
    assert not (original.path / "model").exists()
    assert original.model == original.read("recipe")["model"]
    assert original.read("model") == fingerprint_model(original.model)
    assert original.scores("after") == original.scores("before")
    assert out.model == str(out.path / "model")
    cosines = original.read("vectors")["mood"]
    assert cosines == {"ft_after_u__u": None, "ft_after_u__ft": pytest.approx(1), "u__ft": None}


def test_the_angles_recomputed_from_the_files(two_runs):
    original, out = two_runs

    def flat(path):
        named = read_weights(path)
        return torch.cat([named[n].double().flatten() for n in sorted(named)])

    o, u = flat(Path(original.model)), flat(out.path / "model")
    after, tuned = (flat(r.path / "attacks/mood/model") for r in (out, original))
    cos = torch.nn.functional.cosine_similarity
    expected = [cos(after - u, u - o, 0), cos(after - u, tuned - o, 0), cos(u - o, tuned - o, 0)]
    found = out.read("vectors")["mood"]
    assert list(found.values()) == pytest.approx([e.item() for e in expected], abs=1e-6)


def test_the_summary_has_the_agreed_shape(two_runs):
    summary = summarise(two_runs, chance=0.25)
    model = summary["models"]["original"]
    tasks = model["tasks"]["mood"]
    assert set(model) == {
        "forgotten", "utility", "still_forgotten", "task_accuracy",
        "after_relearning", "tasks", "seconds",
    }  # fmt: skip
    assert model["still_forgotten"] == pytest.approx(sum(tasks["forgotten"]) / 3)
    score = two_runs[0].scores("after")["forget_accuracy"]
    assert model["forgotten"] == pytest.approx(1 - score.value)
    json.dumps(summary, allow_nan=False)


def test_the_report_is_the_same_twice_and_has_the_numbers_of_the_summary(two_runs, tmp_path):
    for name in ("a.html", "b.html", "c.md"):
        write_report([each.path for each in two_runs], tmp_path / name)
    page = (tmp_path / "a.html").read_text()
    assert page == (tmp_path / "b.html").read_text()
    assert "<b>npo</b>" not in page
    assert "&lt;b&gt;npo&lt;/b&gt;" in page
    *_, last = (tmp_path / "c.md").read_text().splitlines()
    assert last.startswith("| &lt;b>npo&lt;/b> | ")
    cells = [cell.split(" ± ")[0].strip("| *") for cell in last.split("|")[2:-1]]
    summary = model_summary(two_runs[1])
    shown = dict(zip(COLUMNS, cells, strict=True))
    shared = [key for key in shown if key in summary]
    assert len(shared) == 5
    for key in shared:
        assert float(shown[key]) == pytest.approx(summary[key], abs=6e-4)


def test_a_tracker_is_told_every_step_and_score(folder, tmp_path):
    told = []
    whole = attacked(folder, "npo")
    out = run(whole, tmp_path / "t", Options(track=lambda *values: told.append(values)))
    assert [step for _, step in told] == [1, 2, 3, 4, 5, 7, 8, 8, 9]
    assert set(told[0][0]) == {"forget", "retain", "lr", "grad_norm"}
    last = {f"relearn/{k}": s.value for k, s in out.scores("relearn-end").items()}
    assert told[-1] == (last, 9)
    assert (out.path / "train.jsonl").read_text() == (
        run(whole, tmp_path / "u").path / "train.jsonl"
    ).read_text()


def test_an_unfinished_run_is_not_reported(two_runs, tmp_path):
    with pytest.raises(ValueError, match="no recipe"):
        RunDir.finished(tmp_path)
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(ValueError, match="not finished"):
        RunDir.finished(tmp_path)


def test_what_cannot_be_recorded_is_refused(folder):
    term = replace(recipe(folder, "npo").objective["forget"], rule=OwnRule(lambda p, h, g, s: h()))
    with pytest.raises(TypeError, match=r"recipe\.rule\.act is a function"):
        describe(term)


@pytest.mark.parametrize(
    "path",
    [
        "os:system",
        "ilu.runs.run:__builtins__.x",
        "builtins:eval",
        "ilu:x",
        "ilu.cli.main:run",
        "ilu.runs.run:Path",
    ],
)
def test_a_record_can_only_name_parts_of_the_package(path):
    with pytest.raises(ValueError, match="not part of ilu"):
        restore({"type": path})


def test_differences_between_records_are_named():
    assert differences({"a": {"b": 1}}, {"a": {"b": 2}}) == ["recipe.a.b: 1 -> 2"]


def test_an_objective_on_an_unknown_stream_names_the_known_ones(folder):
    base = recipe(folder, "npo")
    bad = {"forget": replace(base.objective["forget"], on="froget")}
    with pytest.raises(ValueError, match=r"'froget'; the data has: forget, retain"):
        replace(base, objective=bad)


def test_measuring_leaves_the_random_state_alone(folder):
    lm = load_model(str(folder / "model"))
    before = torch.random.get_rng_state()
    Choice(Facts("agents", count=4))(lm)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_is_not_resumed_on_changed_data(finished, folder, tmp_path):
    data = tmp_path / "forget.jsonl"
    data.write_text((folder / "forget.jsonl").read_text())
    made = recipe(folder, forget=str(data))
    run(made, tmp_path / "run")
    if not finished:
        (tmp_path / "run" / "done.json").unlink()
    data.write_text(data.read_text().replace("number", "figure"))
    with pytest.raises(ValueError, match=r"other settings or data \(data\.forget"):
        run(made, tmp_path / "run", Options(resume=True))


def test_a_model_without_some_weights_is_refused(folder, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(folder / "model", tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    weights = load_file(file)
    del weights["model.norm.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 of its weights, such as model\.norm\.weight"):
        load_model(str(tmp_path / "model"))
    file.write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match="cannot load model"):
        load_model(str(tmp_path / "model"))


def test_a_folder_called_lab_is_not_the_lab(tmp_path, monkeypatch):
    (tmp_path / "lab").mkdir()
    monkeypatch.chdir(tmp_path)
    assert build("npo", {"model": "lab"}).model == "lab"


def test_a_revision_given_as_a_flag_is_the_one_that_is_loaded(folder, tmp_path, monkeypatch):
    loaded = []

    def load(name, revision):
        loaded.append(revision)
        raise ValueError("that is enough")

    monkeypatch.setattr("ilu.runs.prepare.load_tokenizer", load)
    where = ["--revision=v2", f"--out={tmp_path}/run"]
    data = [f"--{name}={folder}/{name}.jsonl" for name in ("forget", "retain")]
    assert command(["unlearn", "npo", "--model=org/model", *data, *where]) == 2
    assert command(["attack", "org/model", "--attack=mood", "--suite=lab", *where]) == 2
    assert command(["unlearn", "npo", "--model=org/model", *data, where[1]]) == 2
    assert loaded == ["v2", "v2", None]
    made = recipe(folder, "whp", revision="v2")
    assert made.data["forget"].source.revision == "v2"


def test_a_revision_of_what_is_on_no_hub_is_refused(tmp_path, capsys):
    assert (
        command(["attack", "lab", "--attack=mood", "--revision=v2", f"--out={tmp_path}/run"]) == 2
    )
    assert "--revision v2 is for a model on the hub, and lab is not" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_data_brought_to_the_lab_is_measured_too(folder):
    made = build("npo", {"model": "lab", "forget": (str(folder / "forget.jsonl"),)})
    assert set(made.metrics) == {"utility", "forget_nll"}  # the lab's agents are not forgotten
    assert set(build("npo", {"model": "lab"}).metrics) == {"forget_accuracy", "utility"}


def test_a_run_in_place_of_its_model_is_told_of(folder, tmp_path):
    out = run(recipe(folder, "npo"), tmp_path / "run")
    with pytest.raises(ValueError, match=r"is a run, not a model: give .*run/model"):
        load_model(str(out.path))


def test_strength_without_ilu_is_accepted_with_a_warning(folder):
    with pytest.warns(UserWarning, match="strength does nothing in 'npo': use npo-ilu"):
        recipe(folder, "npo", strength=1.0)


def test_an_attack_that_cannot_run_leaves_nothing(folder, tmp_path):
    feed = Feed(TaskTrain("mood", 3), 4)
    made = replace(attacked(folder, "x"), attacks={"mood": FineTune(feed, Optim(lr=1e-3, steps=1))})
    with pytest.raises(ValueError, match="attack: 3 examples cannot fill a batch of 4"):
        run(made, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_parameters_can_be_chosen_by_the_user(folder, tmp_path):
    out = run(recipe(folder, "rmu", parameters=r"0\.self_attn\.v_proj"), tmp_path / "run")
    after = read_weights(out.path / "model")
    assert [n for n, w in after.items() if not torch.equal(w, start(folder)[n])] == [
        "model.layers.0.self_attn.v_proj.weight"
    ]


@pytest.mark.parametrize("bad", [{"save_every": 0}])
def test_impossible_options_are_refused(bad):
    with pytest.raises(ValueError, match="at least 1"):
        Options(**bad)


def test_an_attack_takes_at_least_one_step():
    with pytest.raises(ValueError, match="at least 1"):
        FineTune(Feed(TaskTrain("mood"), 4), Optim(lr=1e-3, steps=0))
