"""Settings from a YAML file, and as one."""

import dataclasses

import pytest

from ilu.cli.arguments import attack, evaluate
from ilu.cli.config import TOGETHER, with_config
from ilu.cli.help import flags_of
from ilu.cli.main import run
from ilu.cli.names import Names
from ilu.cli.unlearn import Place, flag_type, read
from ilu.recipes.build import defaults
from ilu.recipes.names import declared_endings, declared_methods, declared_stages
from tests.cli.test_start import fresh

RECIPES = [
    *declared_methods(),
    *(f"npo-{ending}" for ending in declared_endings()),
    "npo-ilu",
    "rmu-sam-ilu",
    "npo-control",
    *(f"npo-{stage}" for stage in declared_stages()),
]
DATA = ("--forget", "f: 1.jsonl", "--forget", "007.csv", "--retain", "true.jsonl",
        "--environment", "-e.jsonl")  # fmt: skip


def words(command, settings, first="recipe"):
    """What a command gets of its words."""

    def read_words(*argv):
        return with_config(Names(command), argv, first, lambda lead: settings)

    return read_words


@pytest.fixture
def printed(capsys):
    """The YAML that a command prints."""

    def text(*argv):
        with pytest.raises(SystemExit) as ended:
            run([*argv, "--print-config"])
        assert ended.value.code == 0
        return capsys.readouterr().out

    return text


@pytest.mark.parametrize("name", RECIPES)
def test_settings_that_are_printed_are_read_back_as_the_same_recipe(name, printed, tmp_path):
    file = tmp_path / "run.yaml"
    more = ("--betas", "0.9", "0.95", "--clip", "None", "--pack", "--lr", "1.5e-7")
    given = [name, "--model", "lab", "--out", "x", *more]
    file.write_text(printed("unlearn", *given))
    found = words("unlearn", ())("--config", str(file))
    assert found[0] == name
    again, place = read(found[0], found[1:])
    assert (again, place) == read(name, given[1:])
    assert printed("unlearn", "--config", str(file)) == file.read_text()


def test_values_that_yaml_would_change_stay_as_they_are(printed, tmp_path):
    file = tmp_path / "run.yaml"
    given = ["--model", "lab", "--out", "no", *DATA[:-1], f"./{DATA[-1]}", "--revision", "1e5"]
    file.write_text(printed("unlearn", "npo-ilu", *given))
    found = words("unlearn", ())("--config", str(file))
    assert {"--forget=f: 1.jsonl", "--forget=007.csv", "--out=no", "--revision=1e5"} <= {*found}
    assert "--retain=true.jsonl" in found


def test_other_commands_print_what_they_read(printed, tmp_path):
    for given in (
        ["attack", "lab", "--attack", "lora:sums", "--attack", "prune:0.3", "--out", "x"],
        ["evaluate", "lab", "lab-never", "--suite", "lab", "--limit", "3"],
        ["sweep", "npo", "--model", "lab", "--grid", "seed=0:3", "lr=1e-3,1e-4", "--out", "x"],
    ):
        file = tmp_path / f"{given[0]}.yaml"
        file.write_text(printed(*given))
        assert printed(given[0], "--config", str(file)) == file.read_text()
    assert "grid: ['seed=0:3', 'lr=1e-3,1e-4']" in file.read_text()


def test_flags_override_the_file(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("recipe: npo\nforget: [a, b]\nmicro-batch: 2\npack: true\nlr: 1e-4\nclip:\n")
    get = words("unlearn", ())
    assert get("--config", str(file)) == [
        "npo", "--forget=a", "--forget=b", "--micro-batch=2", "--pack", "--lr=1e-4", "--clip=None",
    ]  # fmt: skip
    more = ["--no-pack", "--micro_batch=8", "--forget", "c", "--clip", "2"]
    assert get("rmu", f"--config={file}", *more) == ["rmu", "--lr=1e-4", *more]


def test_models_of_evaluate_may_stand_in_the_file_or_before_the_flags(tmp_path):
    file = tmp_path / "e.yaml"
    file.write_text("model: [a, b]\nsuite: lab\n")
    get = words("evaluate", {"suite"}, "model")
    assert get("--config", str(file)) == ["a", "b", "--suite=lab"]
    assert get("c", "--config", str(file), "--limit", "1") == ["c", "--suite=lab", "--limit", "1"]


@pytest.mark.parametrize(
    ("command", "text", "says"),
    [
        ("unlearn", "recipe: npo\nstep: 3", "line 2: ilu unlearn npo has no setting 'step'; did"),
        ("unlearn", "recipe: npo\nrho: 3", "has no setting 'rho'"),
        ("unlearn", "steps: 3", "needs a recipe first"),
        ("unlearn", "recipe: nop", "did you mean 'npo'?"),
        ("unlearn", "recipe: npo\nsteps: 1\nsteps: 2", "line 3: 'steps' is given twice"),
        ("unlearn", "recipe: npo\noptim: {lr: 1}", "line 2: give a value or a list"),
        ("unlearn", "recipe: 'npo", "is not YAML"),
        ("unlearn", "npo", "has no settings"),
        ("sweep", "recipe: npo\ngird: seed=0:3", "did you mean 'grid'?"),
        ("attack", "model: lab\ntsak: mood", "ilu attack has no setting 'tsak'; did you mean"),
        ("evaluate", "model: lab\nsiute: lab", "did you mean 'suite'?"),
        ("evaluate", "model:\nsuite: lab", "line 1: model has no value: write one"),
    ],
)
def test_a_wrong_file_is_refused_without_torch(command, text, says, tmp_path):
    (tmp_path / "run.yaml").write_text(text)
    code, shown, imported = fresh(command, "--config", "run.yaml", cwd=tmp_path)
    assert (code, imported) == (2, [])
    assert says in shown


def test_a_blank_value_is_refused_unless_the_setting_may_be_none(ilu, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("recipe: npo\nmodel: lab\nout: x\nclip:\nforget:\n")
    done = ilu("unlearn", "--config", "run.yaml")
    assert done.returncode == 2
    assert "forget has no value (it is None, or blank in the file): give --forget" in done.stderr
    file.write_text("recipe: npo\nmodel: lab\nout: x\nclip:\n")
    assert "clip: null" in ilu("unlearn", "--config", "run.yaml", "--print-config").stdout


def test_a_memory_plan_reads_the_file_of_a_run(ilu, tmp_path, printed):
    text = printed("unlearn", "rmu", "--model", "lab", "--out", "x", "--micro-batch", "1")
    (tmp_path / "run.yaml").write_text(text)
    by_file = ilu("plan", "--config", "run.yaml", "--device-memory", "8GiB")
    assert by_file.returncode == 0, by_file.stderr
    flags = ("--model", "lab", "--micro-batch", "1", "--device-memory", "8GiB")
    assert by_file.stdout == ilu("plan", "rmu", *flags).stdout


def test_a_file_that_is_missing_or_given_twice_is_refused(capsys, tmp_path):
    assert run(["unlearn", "--config", str(tmp_path / "no.yaml")]) == 2
    assert "no.yaml" in capsys.readouterr().err
    assert run(["unlearn", "--config", "a", "--config", "b"]) == 2
    assert "given twice" in capsys.readouterr().err


def test_settings_of_several_values_that_follow_one_flag_are_known():
    kinds = [flag_type(name, "lab", defaults(name, "lab"), Place) for name in RECIPES]
    kinds += [attack.Attack, evaluate.Evaluate]
    flags = [flag for kind in kinds for flag in flags_of(kind, kind, "")]
    several = [f for f in flags if len(f.given.split()) > 2 and not f.given.endswith("...")]
    assert {flag.name for flag in several} == {*TOGETHER}
    assert all(dataclasses.is_dataclass(kind) for kind in kinds)
