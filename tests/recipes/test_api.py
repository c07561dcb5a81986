"""The functions that ``import ilu`` offers."""

import subprocess
import sys

import pytest

import ilu


@pytest.fixture(scope="module")
def unlearned(tmp_path_factory):
    steps, stages = [], []
    options = ilu.Options(on_step=steps.append, on_eval=lambda stage, scores: stages.append(stage))
    run = ilu.unlearn(
        "npo-ilu", model="lab", steps=3, lr=1e-3, out=tmp_path_factory.mktemp("api") / "run",
        settings={"strength": 0.01, "reading": "gradient", "environment_batch_size": 4},
        options=options,
    )  # fmt: skip
    return run, steps, stages


def test_unlearn_returns_the_run_with_its_settings(unlearned):
    run, _, _ = unlearned
    recipe = run.read("recipe")
    assert recipe["optim"]["steps"] == 3
    assert recipe["optim"]["lr"] == 1e-3
    assert (run.path / "model" / "model.safetensors").is_file()
    assert set(run.scores("after")) == set(run.scores("before"))


def test_callbacks_see_every_step_and_stage(unlearned):
    run, steps, stages = unlearned
    assert steps == run.rows("train")
    assert [row["step"] for row in steps] == [0, 1, 2]
    assert stages == ["before", "after"]


def test_evaluate_measures_a_run_and_a_name_alike(unlearned):
    run, _, _ = unlearned
    scores = ilu.evaluate(run, "lab", limit=10)
    with pytest.raises(ValueError, match="`limit` 0: it must be at least 1"):
        ilu.evaluate(run, "lab", limit=0)
    assert len(repr(scores)) < 1000  # without the value of every item
    assert scores == ilu.evaluate(str(run.path / "model"), "lab", limit=10)
    assert all(score.n == 10 for score in scores.values())


def test_attack_measures_before_and_after_and_calls_back(unlearned, tmp_path):
    run, _, _ = unlearned
    stages = {}
    options = ilu.Options(on_eval=stages.__setitem__)
    attacked = ilu.attack(run, "noise:0.0", suite="lab", out=tmp_path / "noise", options=options)
    assert attacked.scores("before") == attacked.scores("noise-0.0-end")
    assert list(stages) == ["before", "after", "noise-0.0-end"]
    values = {name: score.value for name, score in stages["noise-0.0-end"].items()}
    assert values == {k: s.value for k, s in attacked.scores("noise-0.0-end").items()}


def test_report_and_load_run(unlearned, tmp_path):
    run, _, _ = unlearned
    page = ilu.report(run, tmp_path / "report.html")
    assert "<html" in page.read_text()
    assert ilu.load_run(run.path).scores("after") == run.scores("after")
    with pytest.raises(ValueError, match="not a run directory"):
        ilu.load_run(tmp_path)


def test_a_setting_given_twice_is_refused():
    with pytest.raises(ValueError, match="`steps` is given twice"):
        ilu.unlearn("npo", model="lab", steps=3, settings={"steps": 4})


def test_a_wrong_setting_is_refused_before_a_model_is_loaded():
    with pytest.raises(ValueError, match="npo' has no setting 'stepz'; did you mean 'steps'"):
        ilu.unlearn("npo", model="no/such-model", settings={"stepz": 4})
    with pytest.raises(ValueError, match="did you mean 'noise_share' or 'noise_scale'"):
        ilu.unlearn("npo-undo", model="no/such-model", settings={"noise_shale": 4})
    with pytest.raises(ValueError, match="has no setting 'rho'"):
        ilu.unlearn("npo", model="no/such-model", settings={"rho": 4})
    with pytest.raises(ValueError, match="did you mean 'quantise:4'"):
        ilu.attack("lab", "quantize:4")


def test_folders_get_numbers(monkeypatch, tmp_path):
    from ilu.recipes.api import new_folder

    monkeypatch.chdir(tmp_path)
    for expected in ("npo", "npo-2", "npo-3"):
        folder = new_folder(None, "npo")
        assert str(folder) == f"runs/{expected}"
        folder.mkdir(parents=True)


def test_importing_the_package_loads_no_torch_and_prints_nothing():
    code = "import sys, ilu; assert 'torch' not in sys.modules; ilu.unlearn; ilu.Options"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'unlern'"):
        ilu.unlern  # noqa: B018


def test_a_task_is_an_environment_by_its_short_name():
    from ilu.data.downstream import LabelledText
    from ilu.data.text import Dataset
    from ilu.recipes.build import build

    settings = {"model": "org/model", "forget": "f.jsonl", "retain": "r.jsonl"}
    for name, kind in (("gsm8k", Dataset), ("ag_news", LabelledText)):
        recipe = build("npo-ilu", {**settings, "environment": name})
        assert isinstance(recipe.data["environment"].source, kind)
        assert recipe.data["environment"].role == "environment"
        assert "environment_nll" in recipe.metrics
    with pytest.raises(ValueError, match="the task ag_news has fixed columns"):
        build("npo-ilu", {**settings, "environment": "ag_news", "environment_columns": ("a=b",)})


def test_functions_that_are_not_imported_yet_are_listed():
    code = "import ilu; print(*dir(ilu))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {*ilu.__all__, "__version__"} <= {*done.stdout.split()}


def test_notes_go_to_standard_error_or_to_the_callers_function(capsys):
    from ilu.recipes.api import with_notes

    with_notes(ilu.Options()).on_note("layer 15 of 30")
    assert capsys.readouterr().err == "layer 15 of 30\n"
    notes = []
    assert with_notes(ilu.Options(on_note=notes.append)).on_note == notes.append
