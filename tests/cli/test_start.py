"""What a command imports: flags, help and errors in them need no torch."""

import re
import resource
import subprocess
import sys
from contextlib import suppress
from itertools import pairwise

import pytest

import ilu.attacks
import ilu.attacks.prompting
import ilu.methods
import ilu.recipes.suites
from ilu.cli.arguments import mask, sweep, unlearn
from ilu.cli.commands import COMMANDS
from ilu.cli.help import fitted, is_prose
from ilu.cli.main import run
from ilu.cli.view import serve
from ilu.recipes.mask_names import SUMMARIES
from ilu.recipes.masks import MASKS
from ilu.system.declared import declared
from ilu.system.discover import discovered
from tests.fabricate import make_run

HEAVY = ("torch", "transformers", "datasets", "matplotlib", "scipy")
CODE = f"""
import sys
from contextlib import suppress
from ilu.cli.main import run
from ilu.cli.view import serve
try:
    code = run(sys.argv[1:])
except SystemExit as error:
    code = error.code
print("imported:", *[name for name in {HEAVY} if name in sys.modules])
sys.exit(code)
"""
CPU_SECONDS = 0.7


def fresh(*words, cwd=None):
    """A command in a new process: the exit code, what it printed, and what it imported."""
    command = [sys.executable, "-c", CODE, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd)
    *printed, last = done.stdout.splitlines()
    return done.returncode, "\n".join(printed) + done.stderr, last.removeprefix("imported:").split()


def test_the_package_itself_is_light():
    code = f"import sys, ilu; sys.exit(any(name in sys.modules for name in {HEAVY}))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("words", [["--version"], ["--help"]], ids=" ".join)
def test_version_and_help_take_little_time(words):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code, _, imported = fresh(*words)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (code, imported) == (0, [])
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert seconds < CPU_SECONDS


@pytest.mark.parametrize("command", [*COMMANDS, "sweep status", "mask show", "mask convert"])
def test_help_of_a_command_needs_no_torch(command):
    code, _, imported = fresh(*command.split(), "--help")
    assert (code, imported) == (0, [])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("foo", "unknown command"),
        ("unlearn", "needs a recipe first"),
        ("unlearn nop", "did you mean 'npo'?"),
        ("unlearn npo --model lab --forgte f --out x", "did you mean '--forget'?"),
        ("unlearn npo --model lab --out x --bta 1", "did you mean '--beta'?"),
        ("sweep npo --gird seed=0:3", "did you mean '--grid'?"),
        ("sweep status", "FOLDER"),
        ("plan npo --lenght 3", "did you mean '--length'?"),
        ("mask wagel", "did you mean 'wagle'?"),
        ("evaluate lab --siute lab", "--siute"),
        ("attack lab --tsak mood --out x", "--tsak"),
        ("landscape lab", "unlearned"),
        ("unlearn npo --model lab", "needs --out PATH"),
        ("oracle lab --retain r --out x --steps 2", "needs --lr FLOAT"),
        ("demo --out x --seed one", "--seed one: give a whole number"),
        ("view nowhere", "is not a folder"),
        ("import-config nofile.json", "nofile.json"),
    ],
)
def test_wrong_words_are_refused_without_torch(words, says):
    code, text, imported = fresh(*words.split())
    assert (code, imported) == (2, [])
    assert says.lower() in text.lower()


def test_the_list_of_methods_needs_no_torch():
    code, text, imported = fresh("methods")
    assert (code, imported) == (0, [])
    assert {"npo", "-sam", "-ilu", "wagle", "quantise", "muse"} <= set(text.split())


def test_the_page_of_runs_needs_no_torch(tmp_path):
    """It needs scipy for its intervals and matplotlib for its figures."""
    make_run(tmp_path / "run", "npo", (1,) * 8, (0,) * 8, {})
    code = f"""
import sys
from contextlib import suppress
from pathlib import Path
from ilu.cli.view import Live
live = Live(Path({str(tmp_path)!r}))
live.update()
assert b"npo" in live.html
sys.exit(any(name in sys.modules for name in {HEAVY[:3]}))
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_configuration_is_translated_without_torch(tmp_path):
    (tmp_path / "c.json").write_text('{"unlearn": {"unlearn_method": "GA"}}')
    code, _, imported = fresh("import-config", str(tmp_path / "c.json"))
    assert (code, imported) == (0, [])


@pytest.mark.parametrize(
    ("package", "table"),
    [
        (ilu.methods, "METHODS"),
        (ilu.methods, "ENDINGS"),
        (ilu.attacks, "ATTACKS"),
        (ilu.attacks.prompting, "PROBES"),
        (ilu.recipes.suites, "SUITES"),
    ],
)
def test_what_is_read_off_the_source_is_what_is_imported(package, table):
    found = declared(package.__name__, table)
    assert list(found) == list(discovered(package, table))
    assert all(each.doc for each in found.values())


def test_every_mask_has_a_summary():
    assert list(SUMMARIES) == list(MASKS)


@pytest.mark.parametrize("words", ["", *COMMANDS, "unlearn npo --model lab", "mask show"], ids=str)
def test_no_help_is_wider_than_80_columns(words, capsys):
    with suppress(SystemExit):
        run([*words.split(), "--help"])
    text = capsys.readouterr().out
    assert text
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert "{None}" not in text
    assert "[[" not in text


def test_the_help_of_a_recipe_is_short_and_all_of_it_can_be_had(capsys):
    shown = {}
    for flag in ("--help", "--help-all"):
        with pytest.raises(SystemExit) as ended:
            run(["unlearn", "npo", "--model", "lab", flag])
        assert ended.value.code == 0
        shown[flag] = capsys.readouterr().out
    flags = {name: set(re.findall(r"^  (--\S+)", text, re.M)) for name, text in shown.items()}
    assert flags["--help"] < flags["--help-all"]
    assert len(flags["--help"]) <= 17
    assert {"--model", "--forget", "--steps", "--lr", "--beta", "--out"} <= flags["--help"]
    assert {"--pack", "--betas", "--strength", "--track"} <= flags["--help-all"]
    titles = re.findall(r"^(\w[^:\n]*):$", shown["--help-all"], re.M)
    assert titles[:5] == ["Data", "Training", "Penalty", "Method", "Memory"]
    assert titles[-1] == "Output"


@pytest.mark.parametrize(
    ("words", "most"),
    [
        *((f"unlearn {name} --model lab", 18) for name in ("npo", "rmu", "simnpo", "dpo", "wga")),
        ("unlearn npo-ilu --model lab", 18),
        ("unlearn rmu-ilu --model lab", 21),
        ("sweep npo --model lab", 20),
        ("attack lab", 16),
    ],
)
def test_the_short_help_has_the_settings_that_most_people_need(words, most, capsys):
    with pytest.raises(SystemExit):
        run([*words.split(), "--help"])
    text = capsys.readouterr().out
    shown = re.findall(r"^  (--\S+)", text, re.M)
    assert 12 <= len(shown) <= most
    assert {"--out", "--steps", "--lr", "--batch-size"} <= {*shown}
    assert re.search(r"\d+ more flags: ilu .* --help-all\n", text)


def test_help_of_the_lab_shows_its_one_command(capsys):
    with pytest.raises(SystemExit) as ended:
        run(["lab", "--help-all"])
    assert ended.value.code == 0
    assert "usage: ilu lab build" in capsys.readouterr().out


def test_the_list_of_methods_is_at_most_80_columns_wide(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["methods"]) == 0
    text = capsys.readouterr().out
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert "  npo " in text


@pytest.mark.parametrize("text", [unlearn.overview(), sweep.overview(), mask.overview()])
def test_prepared_help_is_not_broken_at_80_columns(text, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    fixed = [line for line in text.splitlines() if not is_prose(line)]
    assert [line for line in fixed if len(line) > 80] == []
    lines = fitted(text).splitlines()
    assert [line for line in lines if not is_prose(line)] == fixed
    for line, following in pairwise(lines):
        if is_prose(line) and is_prose(following):  # a paragraph is filled
            assert len(line) + 1 + len(following.split()[0]) > 80


def test_a_narrow_terminal_breaks_commands_before_flags(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert fitted("  ilu unlearn npo --model lab --forget secrets.jsonl\n") == (
        "  ilu unlearn npo --model lab \\\n      --forget secrets.jsonl\n"
    )


def test_a_port_that_is_taken_is_named(tmp_path):
    with (
        serve(tmp_path, 0) as first,
        pytest.raises(ValueError, match=r"choose another with --port"),
    ):
        serve(tmp_path, first.server_port)
