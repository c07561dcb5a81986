"""The command, as a user runs it; where the process itself matters, the installed program."""

import json
import os
import signal
import subprocess
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from ilu import __version__
from ilu.cli.flags import as_flags
from ilu.cli.unlearn import read
from ilu.evals.geometry.task_vectors import grams, grouped, known, norms
from ilu.models.load import load_model
from ilu.models.stored import StoredWeights
from ilu.runs.sweep.folder import statuses
from tests.command import INSTALLED, installed
from tests.conftest import ROOT

COMMANDS = (
    "demo",
    "bench",
    "evaluate",
    "ask",
    "oracle",
    "attack",
    "vectors",
    "landscape",
    "report",
    "view",
    "methods",
    "rerun",
    "card",
    "push",
    "import-config",
    "doctor",
)
ENDS = ("original", "unlearned", "finetuned", "tuned_original")
SMALL = ("--model", "lab", "--batch-size", "2", "--environment-batch-size", "4")
QUICK = (*SMALL, "--steps", "2")
NOTHING = (
    "warning: nothing was forgotten: train longer, with a larger --lr, or by another method; the "
    "model is not an unlearned one\n"
)
"""What two steps deserve."""


def unlearn(ilu, *more, recipe="npo-ilu", out="run"):
    return ilu("unlearn", recipe, *QUICK, "--out", out, *more)


def failed(done, *parts):
    """A user's error: one line, exit code 2, no traceback."""
    assert done.returncode == 2, done.stderr + done.stdout
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command, ilu):
    done = ilu(command, "--help")
    assert done.returncode == 0
    assert f"Example: ilu {command}" in done.stdout


def test_help_needs_no_second_page(ilu):
    done = ilu("--help")
    assert done.returncode == 0
    assert all(f"ilu {c}" in done.stdout for c in (*COMMANDS, "unlearn", "lab build"))
    assert "ilu unlearn npo" in ilu("unlearn", "--help").stdout
    assert "Example: ilu lab build" in ilu("lab", "build", "--help").stdout


def test_the_version_is_that_of_the_package(installed_ilu):
    done = installed_ilu("--version")
    assert (done.returncode, done.stdout) == (0, f"ilu {__version__}\n")


def test_recipe_help_shows_the_recipes_own_settings(ilu):
    own, on_lab = (
        ilu("unlearn", "npo-ilu", "--help"),
        ilu("unlearn", "npo", "--model", "lab", "--help-all"),
    )
    assert all(f in own.stdout for f in ("--beta", "--gamma", "--strength", "--reading", "--mask"))
    assert "--strength" in on_lab.stdout
    assert "(default: 0.1)" in own.stdout
    assert "(default: 0.01)" in on_lab.stdout


def test_recipes_begin_at_a_strength_in_units_of_the_forget_term():
    """Flags have both forms, so that a command says what it means whatever the default is."""
    data = [f for n in ("forget", "retain", "environment") for f in (f"--{n}", f"{n}.jsonl")]

    def penalty(*flags, model="org/m"):
        recipe, _ = read("npo-ilu", ["--model", model, *data, "--out", "x", *flags])
        term = recipe.objective["invariance"]
        return term.weight, term.relative_to

    assert penalty() == penalty("--scale-free") == (0.1, "forget")
    assert penalty("--no-scale-free", "--strength", "2") == (2.0, None)
    assert penalty(model="lab") == penalty("--no-scale-free", model="lab") == (1e-3, None)
    assert penalty("--scale-free", model="lab") == (1e-3, "forget")


def test_unlearn_evaluate_attack_vectors_report_and_rerun(ilu, installed_ilu, tmp_path):
    done = unlearn(installed_ilu, "--save-every", "1")
    assert done.returncode == 0, done.stderr
    assert done.stderr == NOTHING  # no library writes when it is imported
    assert len((tmp_path / "run/train.jsonl").read_text().splitlines()) == 2
    assert (tmp_path / "run/model/model.safetensors").is_file()

    done = ilu("evaluate", "run/model", "--suite", "lab", "--out", "scores.json")
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "scores.json").read_text())["models"]["run/model"]
    recorded = json.loads((tmp_path / "run/scores/after.json").read_text())
    assert scores["utility"] == recorded["utility"]

    tune = ("--steps", "3", "--batch-size", "4", "--keep-models", "--out", "mood")
    done = ilu("attack", "run/model", "--attack", "mood", "--suite", "lab", *tune)
    assert done.returncode == 0, done.stderr
    assert "mood-quarter" in done.stdout

    tuned = "mood/attacks/mood/model"
    done = ilu("vectors", "lab", "run/model", tuned, "--tuned-original", tuned, "--json")
    assert done.returncode == 0, done.stderr
    assert all(-1 <= c <= 1 for c in json.loads(done.stdout)["cosines"].values())
    done = ilu("vectors", "lab", "run/model", "--by", "module", "--cka", "lab", "--limit", "8")
    assert done.returncode == 0, done.stderr
    assert "mlp.down_proj" in done.stdout
    assert "CKA on forget" in done.stdout
    line = ("--suite", "lab", "--limit", "4", "--points", "2", "--out", "run/landscape.json")
    done = ilu("landscape", "lab", "run/model", *line)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/landscape-forget_nll.svg").is_file()

    for page in ("report.html", "report.md"):
        assert ilu("report", "run", "--out", page).returncode == 0
        assert "npo-ilu" in (tmp_path / page).read_text()

    # Another process has other hashes of strings, and its own state of every library.
    assert installed_ilu("rerun", "run", "--out", "again").returncode == 0
    model = "model/model.safetensors"
    assert (tmp_path / "run" / model).read_bytes() == (tmp_path / "again" / model).read_bytes()


def test_several_attacks_start_from_the_same_model(ilu, tmp_path):
    names = ("head:sums", "noise:0.5")
    flags = [flag for name in names for flag in ("--attack", name)]
    done = ilu("attack", "lab", *flags, "--probe", "fewshot", "--suite", "lab", "--limit", "8",
               "--steps", "2", "--out", "run")  # fmt: skip
    shown = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("│")]
    assert {"forgotten", "utility", "fewshot"} <= {*shown}
    assert all(title in done.stdout for title in ("before", "head-sums", "noise-0.5"))
    (asked,) = json.loads((tmp_path / "run/scores/probes.json").read_text()).items()
    assert (asked[0], asked[1]["n"]) == ("fewshot", 8)
    assert (tmp_path / "run/scores/noise-0.5-end.json").is_file()
    assert not (tmp_path / "run/attacks").exists()
    failed(ilu("attack", "lab", "--out", "x"), "needs --attack or --probe", "quantise")
    wmdp = ("--probe", "lens", "--suite", "wmdp", "--split", "bio")
    failed(ilu("attack", "lab", *wmdp, "--out", "x"), "questions of --suite wmdp", "choice --data")


def test_bench_measures_methods_and_does_only_what_is_missing(ilu, tmp_path):
    seeds = ("--seed", "0", "--seed", "1")
    command = ("bench", "methods", "--only", "npo", *seeds, "--quick", "--out", "bench")
    done = ilu(*command)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "bench" / "methods.json").read_text())
    (row,) = found["rows"]
    assert (row["recipe"], row["seeds"], found["failed"]) == ("npo", 2, {})
    assert row["peak_memory_mib"]["mean"] > 100
    assert "| npo | " in (tmp_path / "bench" / "methods.md").read_text()
    seen = statuses(tmp_path / "bench")  # it is a sweep
    assert {name: each.state for name, each in seen.items()} == {
        "npo-seed0": "done", "npo-seed1": "done",
    }  # fmt: skip
    before = (tmp_path / "bench" / "runs" / "npo-seed0" / "done.json").stat().st_mtime_ns
    assert ilu(*command).returncode == 0
    assert (tmp_path / "bench" / "runs" / "npo-seed0" / "done.json").stat().st_mtime_ns == before


def test_bench_says_what_it_measures(ilu):
    done = ilu("bench", "speed", "--out", "bench")
    assert done.returncode == 2
    assert "ilu bench methods" in done.stderr


def test_methods_lists_everything_with_its_paper(ilu):
    found = json.loads(ilu("methods", "--json").stdout)
    papers = {e["name"]: e["paper"] for e in found}
    assert papers["NPO"] == "2404.05868"
    assert papers["rmu"] == papers["RMU"] == "2403.03218"
    assert papers["Penalty"] == "2506.01339"
    assert {e["kind"] for e in found} >= {
        "forget loss",
        "retain loss",
        "attack",
        "metric",
        "recipe",
        "mask",
    }
    assert all(e["summary"] for e in found)


def test_doctor_says_whether_the_mirror_is_there(ilu, tmp_path):
    assert ": found" in ilu("doctor", ILU_HUB=str(tmp_path)).stdout.replace("\n", "")
    assert "does not exist" in ilu("doctor", ILU_HUB=str(tmp_path / "no")).stdout


def test_wrong_names_get_a_suggestion(ilu, installed_ilu):
    failed(installed_ilu("unlern"), "unknown command 'unlern'; did you mean 'unlearn'?")
    failed(ilu("unlearn", "npo-ilo"), "unknown recipe 'npo-ilo'; did you mean 'npo-ilu'?")
    failed(ilu("attack", "lab", "--attack", "modo", "--out", "x"), "did you mean 'mood'?")
    failed(ilu("unlearn", "--model", "lab", "npo", "--out", "x"), "needs a recipe first")


def test_a_wrong_flag_is_a_users_error(ilu, installed_ilu):
    done = installed_ilu("unlearn", "npo", "--model", "lab", "--out", "x", "--stepz", "3")
    failed(done, "has no flag '--stepz'; did you mean '--steps'?")
    failed(ilu("unlearn", "npo", "--out", "x"), "needs --model")


def test_bad_input_is_one_line_and_leaves_nothing(ilu, tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"body": "x"}\n')
    (tmp_path / "empty.jsonl").write_text("")
    failed(unlearn(ilu, "--forget", "none.jsonl"), "none.jsonl does not exist")
    failed(unlearn(ilu, "--forget", "bad.jsonl"), "columns body", "text=body")
    failed(unlearn(ilu, "--retain", "empty.jsonl"), "empty.jsonl is empty")
    failed(unlearn(ilu, "--layer", "9", recipe="rmu"), "layer 9", "0 to 5")
    failed(unlearn(ilu, "--device", "cuda:7"), "cannot use device 'cuda:7'")
    failed(
        ilu(
            *[
                "unlearn",
                "npo",
                "--model",
                "nowhere",
                "--forget",
                "a",
                "--retain",
                "b",
                "--steps",
                "2",
                "--out",
                "run",
            ]
        ),
        "model 'nowhere' is no folder",
    )
    failed(ilu("evaluate", "lab"), "needs --data")
    failed(ilu("attack", "lab", "--attack", "no.jsonl", "--out", "x"), "no.jsonl does not exist")
    failed(ilu("report", "nothing"), "not a run directory")
    failed(ilu("rerun", "nothing", "--out", "x"), "not a run directory")
    failed(ilu("vectors", "lab", "lab", "nothing"), "not a model folder")
    failed(ilu("foo"), "unknown command 'foo'. Commands: demo")
    failed(ilu("unlearn", "ilu-npo", "--model", "lab", "--out", "x"), "did you mean 'npo-ilu'?")
    failed(ilu("unlearn", "npo-saam", "--model", "lab", "--out", "x"), "did you mean 'npo-sam'?")
    failed(ilu("plan", "npo", "--model", "lab", "--length", "abc"), "--length abc: say how many")
    failed(ilu("landscape", "lab", "lab", "--kind", "plane", "--out", "x.json"), "third model")
    lab = ("landscape", "lab", "lab", "--suite", "lab", "--out", "x.json")
    failed(ilu(*lab, "--data-columns", "text=body"), "leave --data-columns out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.jsonl", "empty.jsonl"]


def test_an_optimizer_that_was_removed_ends_in_a_line(ilu, tmp_path):
    done = unlearn(ilu, "--optimizer", "soul")
    failed(done, "--optimizer soul: give adamw, sgd, signsgd, mezo, sophia")
    record = json.loads((ROOT / "results/demo/npo/recipe.json").read_text())
    record["optim"]["optimizer"] = "soul"
    (tmp_path / "old").mkdir()
    (tmp_path / "old/recipe.json").write_text(json.dumps(record))
    failed(
        ilu("rerun", "old", "--out", "again"),
        "unknown optimizer 'soul'",
        "adamw, sgd, signsgd, mezo, sophia",
    )


def test_an_existing_or_unwritable_output_is_refused(ilu, tmp_path):
    (tmp_path / "run").mkdir()
    failed(unlearn(ilu), "run exists already", "--resume")
    (tmp_path / "file").write_text("")
    failed(unlearn(ilu, out="file/run"), "file/run")
    failed(ilu("demo", "--quick", "--out", "run"), "exists already")


def test_a_full_disk_is_one_line_and_what_is_there_is_whole(ilu, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=False
    )
    if mounted.returncode:
        pytest.skip("cannot mount a small disk here")
    try:
        done = unlearn(ilu, out="disk/run")
        failed(done)
        assert "space" in done.stderr
        assert not (disk / "run/model").exists()
        assert not list(disk.rglob("*.partial"))
        for file in disk.rglob("*.json"):
            json.loads(file.read_text())
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_debug_shows_the_traceback(installed_ilu):
    done = installed_ilu("report", "nothing", "--debug")
    assert "Traceback" in done.stderr


def test_overlap_is_warned_of(ilu, tmp_path):
    (tmp_path / "both.jsonl").write_text('{"text": "Ann sleeps."}\n{"text": "Ben sings."}\n')
    done = unlearn(ilu, "--forget", "both.jsonl", "--retain", "both.jsonl")
    assert done.returncode == 0
    assert done.stderr == "warning: 2 retain examples are in the forget set as well\n"


LONG = (*SMALL, "--steps", "30")
"""Steps enough for a signal to come between two of them."""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The run that the interrupted ones must end in."""
    place = tmp_path_factory.mktemp("uninterrupted")
    command = ("unlearn", "npo-ilu", *LONG, "--out", "whole")
    assert installed(command, place).returncode == 0
    return place / "whole"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_resume_ends_in_the_same_bytes(
    number, code, installed_ilu, uninterrupted, tmp_path
):
    process = subprocess.Popen(
        [INSTALLED, "unlearn", "npo-ilu", *LONG, "--out", "run"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    log = tmp_path / "run/train.jsonl"
    until = time.monotonic() + 300
    while not (log.exists() and len(log.read_text().splitlines()) > 3):
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == code, errors
    assert b"--resume continues" in errors
    assert not (tmp_path / "run/model").exists()
    again = installed_ilu("unlearn", "npo-ilu", *LONG, "--out", "run", "--resume")
    assert again.returncode == 0
    for file in ("train.jsonl", "model/model.safetensors"):
        assert (uninterrupted / file).read_bytes() == (tmp_path / "run" / file).read_bytes()


def test_quick_demo_tells_the_whole_story(ilu, tmp_path):
    """At smoke size the numbers mean nothing; their shape and their sources do."""
    done = ilu("demo", "--quick", "--out", "demo")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "demo/summary.json").read_text())
    assert summary["schema"] == 2
    assert list(summary["models"]) == ["original", "rmu", "rmu-ilu", "npo", "npo-ilu"]
    for name, model in summary["models"].items():
        assert list(model["tasks"]) == ["sums", "topics", "mood", "owner", "entail", "same"]
        assert (tmp_path / "demo" / name / "done.json").is_file()
        for task in model["tasks"].values():
            assert len(task["forgotten"]) == 3
            assert (task["cosines"]["u__ft"] is None) == (name == "original")
    assert summary["models"]["original"]["forgotten"] <= 0.05
    assert (tmp_path / "demo/report.html").stat().st_size < 2_000_000
    assert load_model(str(tmp_path / "demo/rmu/model")).tokenizer("x")
    for name in ("rmu", "npo-ilu"):
        check_vectors(tmp_path / "demo", name, "mood")


def check_vectors(demo, run, task):
    """The recorded cosines and the norms of ``ilu vectors``, again and by other means."""
    folders = [demo / p for p in ("original/model", f"{run}/model", f"{run}/attacks/{task}/model",
                                  f"original/attacks/{task}/model")]  # fmt: skip
    o, u, f, t = (load_file(folder / "model.safetensors") for folder in folders)

    def flat(end, start):
        return np.concatenate([end[n].astype(float).ravel() - start[n].astype(float).ravel()
                               for n in sorted(o)])  # fmt: skip

    taus = {"ft_after_u": flat(f, u), "u": flat(u, o), "ft": flat(t, o)}
    recorded = json.loads((demo / run / "vectors.json").read_text())[task]
    for pair, cosine in recorded.items():
        a, b = (taus[name] for name in pair.split("__"))
        assert cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-9)
    models = {n: StoredWeights(p) for n, p in zip(ENDS, folders, strict=True)}
    whole = norms(grouped(grams(models), lambda name: "")[""], known(models))
    assert whole == pytest.approx({n: np.linalg.norm(x) for n, x in taus.items()}, rel=1e-9)


def test_messages_of_the_library_show_flags():
    assert (
        as_flags("lower `micro_batch`, see `recipe.json`")
        == "lower --micro-batch, see `recipe.json`"
    )
