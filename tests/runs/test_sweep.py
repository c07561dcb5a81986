"""Sweeps: grids, what is missing and what is not, search, other executors."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from ilu.attacks.noise import Noise
from ilu.attacks.registry import label
from ilu.attacks.weight_edit import WeightEdit
from ilu.cli.main import run as command
from ilu.cli.sweep import tried
from ilu.cli.sweep_flags import goal_of, planned, read, spread, trial
from ilu.cli.sweep_results import show_results
from ilu.data.downstream import Problems
from ilu.data.splits import HalfOfQuestions
from ilu.evals.metrics.final_number import FinalNumber
from ilu.evals.metrics.multiple_choice import Choice
from ilu.lab.sources import Facts, domain
from ilu.models.named import model_path
from ilu.recipes.attacks import with_attacks
from ilu.recipes.build import build
from ilu.recipes.holdout import aimed, as_recorded, attacks_of, halved, on_half, read_goal
from ilu.runs.run import Options, run
from ilu.runs.run_dir import RunDir
from ilu.runs.sweep import folder as sweep
from ilu.runs.sweep import local, optuna_search, ray_tasks, slurm
from ilu.runs.sweep.grid import cells, read_grid, run_name
from ilu.runs.sweep.resources import Resources
from ilu.runs.sweep.worker import STOPPED, Conditions, Outcome, carry_out, recorded
from ilu.system.distributed import Ranks
from ilu.system.errors import Stopped
from ilu.system.locks import alone
from ilu.system.record import describe, restore
from ilu.system.scores import Score
from ilu.training.fit import Optim
from tests.fabricate import HALF, KNOWN, LOST, make_run
from tests.runs.test_run import OWN, recipe

SOAK = pytest.mark.skipif("ILU_SOAK" not in os.environ, reason="a minute or more: make soak")


def test_a_grid_is_every_combination_and_lambda_is_the_strength():
    grid = read_grid(["lambda=0.05,0.1", "seed=0:3"])
    assert grid == {"strength": ["0.05", "0.1"], "seed": ["0", "1", "2"]}
    assert cells(grid)[:2] == [{"strength": "0.05", "seed": "0"}, {"strength": "0.05", "seed": "1"}]
    assert len(cells(grid)) == 6
    assert cells({}) == [{}]


@pytest.mark.parametrize("bad", ["lambda", "=1", "a=", "a=1,,2", "seed=3:3", "a=1,1", "a b=1"])
def test_a_grid_that_cannot_be_read_says_how_to_write_it(bad):
    with pytest.raises(ValueError, match="`grid`"):
        read_grid([bad])


def test_values_follow_their_flag_until_the_next():
    words = ["--grid", "a=1", "b=2", "--out", "x", "y", "--grid", "c=3"]
    assert spread(words, ["--grid"]) == [
        "--grid", "a=1", "--grid", "b=2", "--out", "x", "y", "--grid", "c=3",
    ]  # fmt: skip


def lab(*words, name="npo-ilu"):
    return read(name, ["--model", "lab", "--out", "s", *words])


def test_a_cell_is_what_the_same_flags_make_of_ilu_unlearn():
    found = planned(lab("--grid", "lambda=0.05,0.1", "lr=1e-4"))
    assert [r.objective["invariance"].weight for r in found.values()] == [0.05, 0.1]
    assert {r.optim.lr for r in found.values()} == {1e-4}
    assert all(restore(recorded(r)) == r for r in found.values())


def test_another_model_of_a_grid_has_its_own_defaults(tmp_path):
    """The lab's rate and steps are for the lab."""
    data = [f"--{n}={tmp_path / n}.jsonl" for n in ("forget", "retain")]
    wish = lab("--grid", f"model=lab,{model_path('lab')}", *data, name="npo")
    ours, own = planned(wish).values()
    assert (ours.optim.lr, ours.optim.steps) == (3e-4, 100)
    assert (own.optim.lr, own.optim.steps) == (2e-5, 30)


def test_cells_that_come_to_the_same_recipe_are_one_run():
    found = planned(lab("--grid", "recipe=npo,npo-ilu", "lambda=0.05,0.1"))
    assert sorted(r.name for r in found.values()) == ["npo", "npo-ilu", "npo-ilu"]


def test_attacks_by_name():
    (all_of_them,) = planned(lab("--attack", "all")).values()
    assert len(all_of_them.attacks) == 7
    (two,) = planned(lab("--attack", "mood,relearn", "--attack-steps", "3")).values()
    assert [a.steps for a in two.attacks.values()] == [3, 3]
    with pytest.raises(ValueError, match="unknown task"):
        planned(lab("--attack", "modo"))


def test_an_attack_on_blocks_has_commas_of_its_own():
    (found,) = planned(lab("--attack", "blocks:0,1:mood,lora:sums,relearn")).values()
    assert sorted(found.attacks) == ["blocks-0-1-mood", "lora-sums", "relearn"]
    with pytest.raises(ValueError, match="unknown task"):
        planned(lab("--attack", "mood,,sums"))


def test_what_is_shared_is_not_measured_again_after_unlearning(folder, tmp_path, monkeypatch):
    wanted = with_attacks(recipe(folder, "npo"), ["relearn"], Optim(lr=1e-3, steps=1), batch_size=2)
    alone_ = run(wanted, tmp_path / "alone").path
    first = run(wanted, tmp_path / "first", Options(shared=tmp_path / "shared")).path
    monkeypatch.setattr("ilu.evals.cached_suite.named", lambda name, result: pytest.fail(name))
    second = run(wanted, tmp_path / "second", Options(shared=tmp_path / "shared")).path
    assert results(alone_) == results(first) == results(second)
    with pytest.raises(ValueError, match="cannot use `shared`"):
        Options(shared=tmp_path, ranks=Ranks(0, 2))


def test_a_name_says_what_is_varied_and_leads_nowhere_else(folder):
    one, other = (recipe(folder, "npo", seed=seed) for seed in (0, 1))
    name = run_name(one, {"recipe": "npo", "forget": "../../etc/x y\0é", "seed": "0"})
    assert name.startswith("npo-forget=.._.._etc_x_y_é-seed=0-")
    assert Path(name).name == name
    assert run_name(one, {}) != run_name(other, {})


def test_a_file_is_code_whose_arguments_are_flags(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from ilu.recipes.build import build\n"
        "def recipe(strength: float = 0.1, steps: int = 4):\n"
        "    settings = {'model': 'lab', 'strength': strength, 'steps': steps}\n"
        "    return build('npo-ilu', settings)\n"
    )
    found = planned(read(str(file), ["--out", "s", "--steps", "7", "--grid", "strength=0.2,0.3"]))
    assert [r.objective["invariance"].weight for r in found.values()] == [0.2, 0.3]
    assert {r.optim.steps for r in found.values()} == {7}
    file.write_text("def other(): pass")
    with pytest.raises(ValueError, match="no function recipe"):
        read(str(file), ["--out", "s"])
    with pytest.raises(ValueError, match="does not exist"):
        read(str(tmp_path / "none.py"), ["--out", "s"])


def argv(folder, out, *more):
    words = [f"--{k.replace('_', '-')}={v}" for k, v in OWN.items()]
    data = [f"--{name}={folder / name}.jsonl" for name in ("forget", "retain", "environment")]
    place = [f"--model={folder / 'model'}", f"--out={out}", "--attack-steps=3"]
    given = {word.partition("=")[0] for word in more}
    own = [word for word in (*words, *data, *place) if word.partition("=")[0] not in given]
    return ["npo-ilu", *own, *more]


def results(out):
    kept = [out / "train.jsonl", out / "model" / "model.safetensors", *out.glob("scores/*.json")]
    return {str(p.relative_to(out)): p.read_bytes() for p in kept}


def test_a_killed_sweep_goes_on_and_says_what_failed(folder, tmp_path, capsys):
    """Driver and worker die by SIGKILL within the attack; the result is equal to the byte."""
    out = tmp_path / "with a space é"
    grid = ("--grid", "lr=1e-3,1e30", "--attack", "relearn", "--save-every", "1", "--workers=1")
    words = ["sweep", *argv(folder, out, *grid, "--attack-steps=30")]
    code = "import sys; from ilu.cli.main import run; sys.exit(run(sys.argv[1:]))"
    driver = subprocess.Popen([sys.executable, "-c", code, *words], start_new_session=True)
    until = time.monotonic() + 120
    while not list(out.glob("runs/*/checkpoints/relearn/points.json")):
        assert time.monotonic() < until
        time.sleep(0.01)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    while any(each.state == "running" for each in sweep.statuses(out).values()):
        assert time.monotonic() < until  # the worker's end is the system's to tell
    killed = sweep.statuses(out)
    assert sorted(each.state for each in killed.values()) == ["interrupted", "waiting"]
    assert list(out.glob("runs/*/checkpoints/relearn/*/optimizer.safetensors"))

    assert command(words) == 2
    said = capsys.readouterr()
    assert "1 of 2 runs are not done" in said.err
    assert "lower --lr" in said.out
    found = sweep.statuses(out)
    assert sorted(each.state for each in found.values()) == ["done", "failed"]
    (good,) = (sweep.place(out, name) for name, each in found.items() if each.state == "done")
    whole = run(restore(json.loads((good / "recipe.json").read_text())), tmp_path / "whole").path
    assert results(whole) == results(good)
    assert len(results(whole)) == 7
    assert not [*good.rglob("*.partial"), *good.rglob("checkpoints"), *out.rglob(".*.lock")]
    kept = list((out / "shared" / "evaluation").glob("*.json"))
    # Before once for both, after for the good one; held-out retain data has no example here.
    assert len(kept) == 5 + 5

    assert command(["sweep", "status", str(out)]) == 0
    assert "1 failed, 1 done" in capsys.readouterr().out
    with alone(out / sweep.PLAN):
        assert command(["sweep", "resume", str(out)]) == 2
        assert "another process" in capsys.readouterr().err


def test_the_worst_usable_case_is_shown_once_runs_are_done(tmp_path, capsys):
    """Means over the seeds of a recipe; a run that is not done does not count."""
    broken = {"end": {"forget_accuracy": KNOWN, "task_accuracy": KNOWN, "utility": LOST}}
    usable = {"end": {"forget_accuracy": HALF, "task_accuracy": KNOWN, "utility": KNOWN}}
    attacks = {"mood": broken, "sums": usable}
    for seed, done in ((0, True), (1, True), (2, False)):
        make_run(sweep.place(tmp_path, f"s{seed}"), "npo", KNOWN, LOST, attacks,
                 seed=seed, done=done)  # fmt: skip
    damaged = make_run(sweep.place(tmp_path, "s3"), "npo", KNOWN, LOST, attacks, seed=3)
    (damaged / "scores" / "after.json").write_text("{")
    show_results(tmp_path, ["s0", "s1", "s2", "s3", "s4"])
    said = re.sub(r"[\s│┃]+", " ", capsys.readouterr().out)
    assert "worst usable case" in said
    # forgotten, utility, the worst case, and the worst of a model that is usable
    assert re.search(r"npo 1\.000 ± \S+ 1\.000 ± \S+ 0\.000 ± \S+ .*0\.500 ± 0\.000", said)
    assert said.index("(mood)") < said.index("(sums)")
    show_results(tmp_path, ["s2"])
    assert capsys.readouterr().out == ""


def test_cancelling_stops_runs_wherever_they_are_and_resuming_goes_on(folder, tmp_path):
    wanted, cancel = recipe(folder, "npo"), tmp_path / "cancelled"
    cancel.touch()
    conditions = Conditions(cancel=cancel)
    assert carry_out(describe(wanted), tmp_path / "run", conditions) == STOPPED
    path = tmp_path / "run"
    assert not (path / "done.json").exists()
    assert sweep.status(path, describe(wanted)).state == "interrupted"
    cancel.unlink()
    assert carry_out(describe(wanted), path, conditions) is None
    assert sweep.status(path, describe(wanted)) == sweep.Status(
        "done", 1.0, json.loads((path / "done.json").read_text())["seconds"]
    )


def test_a_run_that_another_process_writes_is_left_alone(folder, tmp_path):
    record, path = describe(recipe(folder, "npo")), tmp_path / "run"
    with alone(path):
        assert sweep.status(path, record).state == "running"
        assert "another process" in (carry_out(record, path, Conditions()) or "")
        assert not path.exists()
    assert sweep.status(path, record).state == "waiting"


def test_a_plan_cannot_name_places_outside_its_folder(tmp_path):
    for name in ("../other", "/etc", "..", "a\0b", ""):
        (tmp_path / sweep.PLAN).write_text(json.dumps({"search": False, "runs": {name: {}}}))
        with pytest.raises(ValueError, match="not the name of a run"):
            sweep.read_plan(tmp_path)
    (tmp_path / sweep.PLAN).write_text('{"runs": ')
    with pytest.raises(ValueError, match="damaged"):
        sweep.read_plan(tmp_path)
    with pytest.raises(ValueError, match="not the folder of a sweep"):
        sweep.read_plan(tmp_path / "none")


def test_time_left_counts_what_is_under_way():
    done, failed = sweep.Status("done", 1.0, 10.0), sweep.Status("failed", 0.2)
    half, waiting = sweep.Status("running", 0.5), sweep.Status("waiting", 0.0)
    found = {"a": done, "b": failed, "c": half, "d": waiting}
    assert sweep.seconds_left(found, workers=1) == 15.0
    assert sweep.seconds_left(found, workers=3) == 5.0
    assert sweep.seconds_left({"c": half}, workers=1) is None


def test_a_cancelled_sweep_ends_in_words(folder, tmp_path, monkeypatch, capsys):
    """By another command, so that no signal has come to the one that carries it out."""
    whole = local.carry_out_all

    def carry_out_all(jobs, **given):
        sweep.cancel(tmp_path / "out")
        return whole(jobs, **given)

    monkeypatch.setattr(local, "carry_out_all", carry_out_all)
    assert command(["sweep", *argv(folder, tmp_path / "out")]) == 128 + signal.SIGTERM
    assert "stopped; the same command, or ilu sweep resume continues" in capsys.readouterr().err


def test_a_run_whose_process_was_lost_is_listed_with_the_reason(
    folder, tmp_path, monkeypatch, capsys
):  # fmt: skip
    def carry_out_all(jobs, **given):
        return iter(Outcome(path, "lost in a test") for path in jobs)

    monkeypatch.setattr(local, "carry_out_all", carry_out_all)
    assert command(["sweep", *argv(folder, tmp_path / "out")]) == 2
    assert re.search(r"waiting: npo-ilu\S*: lost in a test", capsys.readouterr().out)


# --- Search ----------------------------------------------------------------------------------


def test_halves_are_disjoint_and_together_the_whole():
    facts = Facts("agents", count=80)
    halves = [HalfOfQuestions(facts, half)() for half in ("validation", "test")]
    assert all(25 < len(h) < 55 for h in halves)
    assert sorted(q.prompt for h in halves for q in h) == sorted(q.prompt for q in facts())
    with pytest.raises(ValueError, match="cannot be split"):
        halved("m", lambda lm: Score(0, 0, 1), "test")
    with pytest.raises(ValueError, match="none of 1 items is in the"):
        for half in ("validation", "test"):
            HalfOfQuestions(Facts("agents", count=1), half)()


def test_both_halves_ask_for_everything_though_the_questions_have_a_period():
    """The lab's questions ask of one agent after the other the same attributes."""
    period = len(domain("agents").attributes)
    questions = Facts("agents")()
    asked = {q.prompt: i % period for i, q in enumerate(questions)}
    assert len(asked) == len(questions)
    for half in ("validation", "test"):
        counts = Counter(asked[q.prompt] for q in HalfOfQuestions(Facts("agents"), half)())
        assert len(counts) == period
        assert min(counts.values()) > 0.6 * max(counts.values())


def test_what_was_for_validation_is_in_no_goal_of_the_test():
    """Relearning asks after some of the facts that the recipe's own metric is on."""
    goal = ("--goal", "utility@after,-forget_accuracy@mood-end", "--search", "lr=1e-4:1e-3:log")
    wish = lab(*goal, "--attack", "relearn,in-turn:sums+sums", name="npo")
    _, found = trial(wish, "", {"lr": 2e-4})
    (test,) = planned(wish).values()
    seen = {q.prompt for m in found.metrics.values() for q in m.questions()}
    others = {q.prompt for q in test.attacks["relearn"].goals["others_accuracy"].questions()}
    assert others
    assert not others & seen
    assert others < {q.prompt for q in test.metrics["forget_accuracy"].questions()}
    parts = test.attacks["in-turn-sums+sums"].goals
    assert [m.questions.half for m in parts.values()] == ["test", "test"]
    whole = FinalNumber(Problems(limit=3))
    assert aimed(WeightEdit(Noise(0.1), {"g": whole}), "test").goals == {"g": whole}


def test_a_search_on_the_users_own_data_leaves_out_slow_metrics_until_the_test(folder):
    data = {"forget": str(folder / "forget.jsonl"), "retain": str(folder / "retain.jsonl")}
    made = build("npo", {"model": str(folder / "model"), **data})
    assert set(made.slow_metrics) == {"degenerate"}
    assert on_half(made, "validation").slow_metrics == {}
    assert on_half(made, "test").slow_metrics == made.slow_metrics


def test_a_search_shows_trials_no_test_item_and_the_test_no_validation_attack():
    goal = ("--goal", "utility@after,-forget_accuracy@mood-end", "--search", "lr=1e-4:1e-3:log")
    wish = lab(*goal, "--attack", "all", name="npo")
    (test,) = planned(wish).values()
    assert "mood" not in test.attacks
    assert len(test.attacks) == 6
    assert all(m.questions.half == "test" for m in test.metrics.values() if isinstance(m, Choice))
    with pytest.raises(ValueError, match="for validation"):
        planned(lab(*goal, "--attack", "mood"))
    with pytest.raises(ValueError, match="--goal"):
        planned(lab("--search", "lr=1:2"))
    with pytest.raises(ValueError, match="a stage is before, after, or ATTACK-POINT"):
        planned(lab("--search", "lr=1:2", "--goal", "forget_accuracy@probes"))
    assert attacks_of(read_goal("a@after,-b@mood-end,c@mood-half")) == ["mood"]


@pytest.mark.parametrize(
    "name", ["lora:mood", "blocks:0,1:mood", "in-turn:mood+sums", "quantise:4"]
)
def test_a_search_may_look_at_any_attack(name, tmp_path):
    """Named as in --attack; the trial has it, without test items, and the grid has not."""
    goal = ("--goal", f"utility@after,-forget_accuracy@{name}-end", "--search", "lr=1e-4:1e-3:log")
    wish = lab(*goal, "--attack", "relearn", name="npo")
    (test,) = planned(wish).values()
    assert list(test.attacks) == ["relearn"]
    _, found = trial(wish, "", {"lr": 2e-4})
    assert list(found.attacks) == [label(name)]
    assert not any(a.goals for a in found.attacks.values())
    run_dir = RunDir(tmp_path)
    run_dir.write("recipe", describe(found))
    run_dir.write_scores("after", {"utility": Score(0.75, 0, 1)})
    run_dir.write_scores(f"{label(name)}-end", {"forget_accuracy": Score(0.5, 0, 1)})
    assert optuna_search.value(run_dir, as_recorded(goal_of(wish))) == 0.25
    with pytest.raises(ValueError, match="for validation"):
        planned(lab(*goal, "--attack", f"relearn,{name}", name="npo"))


def test_workers_change_no_trial_of_a_search(tmp_path):
    """They decide how many runs are under way, and not how many are chosen at once."""
    told: list[tuple[int, list[str]]] = []

    def finish(records):
        told.append((len(records), sorted(records)))
        for name, record in records.items():
            out = RunDir(tmp_path / "runs" / name)
            out.write("recipe", record)
            out.write_scores("after", {"utility": Score(0.5, 0, 1)})
        return {}

    found, ranges = [], optuna_search.read_ranges(["lr=1e-4:1e-3:log"])
    for workers in (1, 4):
        goal = ("--search", "lr=1e-4:1e-3:log", "--trials", "5", "--goal", "utility@after")
        words = ["--model", "lab", "--out", str(tmp_path), *goal, "--workers", str(workers)]
        found.append(tried(read("npo", words), "", ranges, finish))
    assert found[0] == found[1]
    assert [count for count, _ in told] == [2, 2, 1, 2, 2, 1]


def test_a_search_knows_the_names_that_a_grid_knows():
    wish = lab("--search", "lambda=0.1:1", "--goal", "utility@after")
    ranges = optuna_search.read_ranges(wish.flags.search)
    assert list(ranges) == ["strength"]
    _, found = trial(wish, "", {"strength": 0.25})
    assert found.objective["invariance"].weight == 0.25
    with pytest.raises(ValueError, match="strength is given twice"):
        optuna_search.read_ranges(["lambda=0.1:1", "strength=0.1:1"])


@pytest.mark.parametrize("bad", ["lr", "lr=2:1", "lr=0:1:log", "lr=1:2:lin", "lr=a:b"])
def test_ranges_that_cannot_be_are_refused(bad):
    with pytest.raises(ValueError, match="`search`"):
        optuna_search.read_ranges([bad])


@pytest.mark.skipif(not find_spec("optuna"), reason="optuna is not installed")
def test_a_search_asks_the_same_again_and_finds_the_better_half():
    ranges = optuna_search.read_ranges(["lr=1e-4:1e-2:log", "steps=1:9"])
    trials: list[optuna_search.Trial] = []
    for _ in range(12):
        asked = optuna_search.suggest(ranges, trials, 2, seed=0)
        assert asked == optuna_search.suggest(ranges, trials, 2, seed=0)
        assert all(1e-4 <= each["lr"] <= 1e-2 and each["steps"] in range(1, 10) for each in asked)
        trials += [optuna_search.Trial(each, -abs(each["steps"] - 3)) for each in asked]
    assert optuna_search.best(trials)["steps"] in (2, 3, 4)
    trials.append(optuna_search.Trial(trials[0].settings, None))  # a failed trial is no obstacle
    optuna_search.suggest(ranges, trials, 1, seed=0)
    with pytest.raises(ValueError, match="every trial"):
        optuna_search.best([trials[-1]])


# --- Clusters --------------------------------------------------------------------------------


@pytest.fixture
def notice(monkeypatch):
    """Slurm gives notice once, when a run first looks whether its sweep is cancelled."""
    given: list[bool] = []

    def cancelled(conditions):
        if not given:
            given.append(True)
            signal.raise_signal(slurm.NOTICE)
        return False

    monkeypatch.setattr(Conditions, "cancelled", cancelled)


def test_a_slurm_job_on_notice_saves_before_it_is_queued_again(folder, tmp_path, notice):
    """submitit's handler, which ends the process, finds a checkpoint; the next job goes on."""
    record, path = describe(recipe(folder, "npo")), tmp_path / "run"
    job = slurm.Job(record, path, Conditions())
    saved: list[list[Path]] = []
    with handled(lambda: saved.append(list(path.glob("checkpoints/**/*.safetensors")))):
        assert job() == STOPPED
        assert len(saved) == 1
        assert saved[0]
        assert job() is None
        assert len(saved) == 1
    whole = run(restore(record), tmp_path / "whole").path
    assert results(whole) == results(path)


def test_a_slurm_job_that_is_not_queued_again_says_why(folder, tmp_path, notice):
    def refuse():
        raise RuntimeError("Job not requeued because: timed-out too many times.")

    job = slurm.Job(describe(recipe(folder, "npo")), tmp_path / "run", Conditions())
    with handled(refuse):
        assert "too many times. The checkpoint is kept: repeat" in (job() or "")


@contextmanager
def handled(act):
    """What submitit does at the signal of Slurm."""
    before = signal.signal(slurm.NOTICE, lambda number, frame: act())
    try:
        yield
    finally:
        signal.signal(slurm.NOTICE, before)


def test_what_slurm_is_told_of_a_job():
    asked = slurm.slurm_parameters(Resources(gpus=2.0, memory=80, partition="long"), "slurm")
    assert (asked["gpus_per_node"], asked["mem_gb"], asked["slurm_partition"]) == (2, 80, "long")
    assert (asked["timeout_min"], asked["slurm_signal_delay_s"]) == (24 * 60, 600)
    short = slurm.slurm_parameters(Resources(hours=0.001), "slurm")
    assert (short["timeout_min"], short["slurm_signal_delay_s"]) == (1, 6)  # 0 would be no limit
    with pytest.raises(ValueError, match="whole GPUs"):
        slurm.slurm_parameters(Resources(gpus=0.5), "slurm")


def test_a_job_that_is_lost_in_slurm_says_how_and_where_to_read_more(tmp_path):
    lost = Job("CANCELLED by 0", tmp_path / "4_0_log.err")
    found = list(slurm.collect({tmp_path / "run": lost}, lambda: False))
    assert found == [
        Outcome(tmp_path / "run", f"lost in Slurm, state CANCELLED by 0: see {lost.paths.stderr}")
    ]


class Job:
    """One of submitit's, without a result."""

    def __init__(self, state, stderr):
        self.state, self.paths = state, SimpleNamespace(stderr=stderr)

    def done(self):
        return True

    def exception(self):
        return RuntimeError("Job 4_0 (task: 0) with path\nhas not produced any output")


@SOAK
@pytest.mark.skipif(not find_spec("submitit"), reason="submitit is not installed")
def test_slurm_jobs_here_as_processes(folder, tmp_path):
    records = {tmp_path / "run": describe(recipe(folder, "npo"))}
    place = {"resources": Resources(), "conditions": Conditions(), "logs": tmp_path / "logs"}
    for _ in range(2):  # the second finds it finished and submits nothing
        found = list(slurm.carry_out_all(records, stop=lambda: False, cluster="local", **place))
        assert [each.error for each in found] == [None]


@pytest.mark.parametrize("kind", ["", "ray://"])
def test_an_address_where_nothing_listens_is_refused_at_once(kind):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"{kind}127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ValueError, match=r"no server answers .*ray start --head"):
            ray_tasks.check_address(address)
        free.listen()
        ray_tasks.check_address(address)
    ray_tasks.check_address("auto")
    ray_tasks.check_address(None)


@SOAK
@pytest.mark.skipif(not find_spec("ray"), reason="ray is not installed")
def test_ray_carries_out_skips_and_stops(folder, tmp_path):
    records = {tmp_path / n: describe(recipe(folder, "npo", seed=i)) for i, n in enumerate("ab")}
    conditions = Conditions(cancel=tmp_path / "cancelled")
    place = {"resources": Resources(), "conditions": conditions}
    with pytest.raises(Stopped):
        list(ray_tasks.carry_out_all(records, stop=lambda: True, **place))
    found = list(ray_tasks.carry_out_all(records, stop=lambda: False, **place))
    assert {each.path.name: each.error for each in found} == {"a": None, "b": None}
    assert len(list(ray_tasks.carry_out_all(records, stop=lambda: False, **place))) == 2
