"""A suite is one file: found by walking the package, with no other file touched."""

import json
import sys

import pytest

import ilu.recipes.suites as package
from ilu.cli.main import run
from ilu.recipes.suite import suite_of, suites
from ilu.recipes.suite_request import SuiteRequest
from tests.pages import example

FILE = example("metrics.md", "SUITES")


@pytest.fixture
def sure(tmp_path, monkeypatch):
    (tmp_path / "sure.py").write_text(FILE)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    yield suites()["sure"]
    sys.modules.pop("ilu.recipes.suites.sure", None)


def test_a_suite_of_one_file_is_found(sure, tmp_path, capsys):
    out = tmp_path / "scores.json"
    assert run(["evaluate", "lab", "--suite", "sure", "--limit", "4", "--out", str(out)]) == 0
    assert json.loads(out.read_text())["models"]["lab"]["sure"]["n"] == 4
    assert "sure" in capsys.readouterr().out


def test_what_it_accepts_is_read_from_its_entry(sure):
    with pytest.raises(ValueError, match="the suite sure has its own data"):
        suite_of("sure", SuiteRequest(data="x.jsonl"))
    with pytest.raises(ValueError, match="the suite sure has no split 'news', it has none"):
        suite_of("sure", SuiteRequest(split="news"))


def test_an_unknown_suite_is_an_error_with_a_suggestion(capsys):
    assert run(["evaluate", "lab", "--suite", "tofuu"]) == 2
    assert "tofu" in capsys.readouterr().err
