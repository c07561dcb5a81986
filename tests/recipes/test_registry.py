"""A method is one file: found by walking the package, with no other file touched."""

import json
import re
import sys
from pathlib import Path

import pytest

import ilu.methods.forget as package
from ilu.cli.main import run
from ilu.recipes.build import build
from ilu.recipes.names import parse_name
from ilu.recipes.registry import endings, methods

DOCS = Path(__file__).parents[2] / "docs" / "method.md"


@pytest.fixture
def hinge(tmp_path, monkeypatch):
    """The file of docs/method.md in a folder that belongs to the package for one test."""
    (code,) = re.findall(r"```python\n(# hinge\.py\n.*?)```", DOCS.read_text(), re.DOTALL)
    (tmp_path / "hinge.py").write_text(code)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    yield methods()["hinge"]
    sys.modules.pop("ilu.methods.forget.hinge", None)


def test_a_method_of_one_file_is_found_everywhere(hinge, capsys):
    assert build("hinge-sam-ilu", {"model": "lab"}).objective["forget"].weight == 1.0
    assert run(["methods"]) == 0
    assert "hinge" in capsys.readouterr().out
    assert run(["methods", "--all"]) == 0
    assert "Hinge" in capsys.readouterr().out
    assert run(["unlearn", "--help"]) == 0
    assert "hinge" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(["unlearn", "hinge", "--model", "lab", "--help"])
    assert "--enough" in capsys.readouterr().out


def test_its_page_says_what_it_minimises(hinge):
    from ilu.cli.methods_page import page

    text = page()
    assert "### hinge\n" in text
    assert "1 Hinge(forget)" in text


def test_the_contract_tests_walk_to_it(hinge):
    from tests.contracts.test_losses import losses

    assert "Hinge" in {parameter.id for parameter in losses()}


def test_its_memory_is_that_of_a_method_that_reads_the_same(hinge, capsys):
    found = []
    for name in ("hinge", "simnpo"):
        assert run(["plan", name, "--model", "lab", "--batch-size", "4", "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1]


def test_it_runs(hinge, tmp_path):
    words = ["--model", "lab", "--steps", "1", "--batch-size", "2", "--out", str(tmp_path / "run")]
    assert run(["unlearn", "hinge", *words]) == 0
    assert run(["rerun", str(tmp_path / "run"), "--out", str(tmp_path / "again")]) == 0


@pytest.mark.parametrize(
    ("old", "new"), [("npo-ahead-ilu", "npo-lookahead-ilu"), ("rmu-ahead", "rmu-lookahead")]
)
def test_recipe_names_of_older_versions_work_with_a_notice(old, new):
    with pytest.warns(UserWarning, match=f"the recipe {old} is called {new} now"):
        assert str(parse_name(old)) == new


def test_settings_of_older_versions_work_with_a_notice():
    with pytest.warns(UserWarning, match="the setting ahead is called lookahead_step now"):
        found = build("npo-lookahead", {"model": "lab", "ahead": 0.5})
    assert found.objective["forget"].rule.lookahead_step == 0.5


def test_two_files_cannot_define_one_name(tmp_path, monkeypatch):
    (tmp_path / "second.py").write_text('METHODS = {"npo": None}\n')
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    with pytest.raises(ValueError, match=r"second defines 'npo', like another file"):
        methods()


def test_every_method_has_settings_for_the_lab():
    assert {name for name, m in methods().items() if not m.lab and not m.is_published_run} == set()
    assert set(endings()) >= {"sam", "rs", "gp", "cr", "wa", "lat", "tar", "mudman", "lookahead"}
