"""One name for one thing in all commands, and the flags of older versions."""

import re
import warnings

import pytest

from ilu.cli.arguments.unlearn import Place, Trial, field_names
from ilu.cli.commands import COMMANDS
from ilu.cli.main import run
from ilu.cli.names import OLD_FLAGS, Names
from ilu.recipes.names import declared_endings, declared_methods
from ilu.recipes.settings import Common, Invariance
from ilu.training.optim.settings import Optim


def quietly(names: Names, words: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return " ".join(names.with_model(names.renewed(words.split())))


@pytest.mark.parametrize(
    ("command", "given", "read"),
    [
        ("unlearn", "npo lab --out x", "npo --model lab --out x"),
        ("unlearn", "npo --model lab --out x", "npo --model lab --out x"),
        ("sweep", "npo lab --grid seed=0:2", "npo --model lab --grid seed=0:2"),
        ("sweep", "status sweeps/one", "status sweeps/one"),
        ("plan", "npo lab", "npo --model lab"),
        ("mask", "wagle lab --fraction 0.1", "wagle --model lab --fraction 0.1"),
        ("mask", "compare a b", "compare a b"),
        ("attack", "--attack mood --model lab", "lab --attack mood"),
        ("attack", "lab --attack mood", "lab --attack mood"),
        ("evaluate", "--model=a --suite lab --model b", "a b --suite lab"),
        ("ask", "--model lab prompt", "lab prompt"),
        ("oracle", "--model a --retain r", "a --retain r"),
        (
            "attack",
            "lab --task mood --attack prune:1",
            "lab --attack mood --attack prune:1 --keep-models",
        ),
        ("attack", "lab --task=mood --keep", "lab --attack=mood --keep-models"),
        ("attack", "lab --attack mood --keep", "lab --attack mood --keep-models"),
        ("attack", "lab --no-keep --every=5", "lab --no-keep-models --eval-every=5"),
        ("attack", "lab --ask fewshot --ask all", "lab --probe fewshot --probe all"),
        ("unlearn", "npo lab --keep best", "npo --model lab --keep best"),
        ("attack", "lab --task_columns a=b", "lab --attack-columns a=b"),
        ("evaluate", "lab --columns=text=body", "lab --data-columns=text=body"),
        ("vectors", "a b --columns text=body", "a b --cka-columns text=body"),
        ("sweep", "npo lab --attacks all", "npo --model lab --attack all"),
        ("unlearn", "npo lab --measured 4", "npo --model lab --limit 4"),
        ("unlearn", "npo lab --reach x", "npo --model lab --perturbed x"),
        ("unlearn", "npo-ahead lab", "npo-lookahead --model lab"),
        ("unlearn", "pdu lab --limit 2.5", "pdu --model lab --retain-limit 2.5"),
        ("unlearn", "pdu lab --limit 2", "pdu --model lab --limit 2"),
        ("bench", "methods --seeds 2 --quick", "methods --seed 0 --seed 1 --quick"),
        ("bench", "methods --seeds=1", "methods --seed 0"),
    ],
)  # fmt: skip
def test_words_are_read_under_one_name(command, given, read):
    assert quietly(Names(command), given) == read


def test_an_older_flag_gives_one_line_and_does_what_it_did(ilu, tmp_path):
    done = ilu("attack", "lab", "--task", "mood", "--out", "run", "--print-config")
    assert done.returncode == 0, done.stderr
    assert done.stderr == (
        "warning: the flag --task is called --attack now, and --keep-models saves the attacked "
        "weights\n"
    )
    assert "attack: [mood]" in done.stdout
    assert "keep_models: true" in done.stdout
    new = ilu("attack", "--model", "lab", "--attack", "mood", "--keep-models", "--out", "run",
              "--print-config")  # fmt: skip
    assert (new.stdout, new.stderr) == (done.stdout, "")


def test_the_older_name_of_a_recipe_gives_one_line(ilu):
    done = ilu("unlearn", "npo-ahead", "lab", "--out", "run", "--print-config")
    assert done.stderr == "warning: the recipe npo-ahead is called npo-lookahead now\n"
    assert "recipe: npo-lookahead" in done.stdout


def test_a_file_may_have_older_names(ilu, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("model: lab\ntask: mood\nattack: [sums]\nout: run\n")
    done = ilu("attack", "--config", "run.yaml", "--print-config")
    assert "attack: [mood, sums]" in done.stdout
    assert "warning: the flag --task is called --attack now" in done.stderr
    file.write_text("model: lab\nattack: mood\nkeep: false\nask: [lens]\nevery: 5\nout: run\n")
    done = ilu("attack", "--config", "run.yaml", "--print-config")
    assert "keep_models: false" in done.stdout
    assert "eval_every: 5" in done.stdout
    assert "probe: [lens]" in done.stdout
    assert done.stderr.splitlines() == [
        f"warning: the flag --{old} is called --{new} now"
        for old, new in (("no-keep", "no-keep-models"), ("ask", "probe"), ("every", "eval-every"))
    ]
    file.write_text("recipe: npo\nmodel: lab\nmeasured: 4\nout: run\n")
    assert "limit: 4\n" in ilu("unlearn", "--config", "run.yaml", "--print-config").stdout
    over = ilu("unlearn", "npo", "lab", "--config", "run.yaml", "--limit", "9", "--print-config")
    assert "limit: 9\n" in over.stdout
    file.write_text("models: [lab, lab-never]\nsuite: lab\n")
    assert (
        "model: [lab, lab-never]"
        in ilu("evaluate", "--config", "run.yaml", "--print-config").stdout
    )


def test_the_names_of_today_are_in_the_help_and_the_older_ones_are_not(capsys):
    first = {"unlearn": ["npo", "lab"], "sweep": ["npo", "lab"]}
    for command, old in OLD_FLAGS.items():
        if command == "plan":  # whose flags are those of unlearn
            continue
        with pytest.raises(SystemExit):
            run([command, *first.get(command, []), "--help-all"])
        flags = set(re.findall(r"^  (--\S+)", capsys.readouterr().out, re.M))
        assert {*old.values()} <= flags
        assert not flags & {*old}


def test_no_setting_of_a_method_has_the_name_of_one_that_all_have():
    common = {*field_names(Common, Optim, Invariance, Place, Trial)}
    settings = [*declared_methods().values(), *declared_endings().values()]
    assert [each.name for each in settings if common & {*each.settings}] == []


def test_every_command_with_older_flags_exists():
    assert OLD_FLAGS.keys() <= COMMANDS.keys()
