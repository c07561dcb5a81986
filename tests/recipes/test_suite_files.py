"""A suite is one file: found by walking the package, with no other file touched."""

import json
import re
import sys

import pytest

import ilu.recipes.suites as package
from ilu.cli.main import run
from ilu.cli.methods_page import page
from ilu.recipes.suite import suite_of, suites
from ilu.recipes.suite_request import SuiteRequest
from tests.contracts import test_suites
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


def test_it_is_listed_wherever_suites_are(sure, capsys):
    assert run(["methods"]) == 0
    assert re.search(r"^  sure +Accuracy on the lab's facts", capsys.readouterr().out, re.M)
    with pytest.raises(SystemExit):
        run(["evaluate", "--help"])
    assert "* sure: Accuracy on the lab's facts about people." in capsys.readouterr().out
    assert "* `sure`: Accuracy on the lab's facts about people." in page()


def test_the_contract_of_suites_finds_it(sure):
    found = suites()
    assert "sure" in found
    for contract in (
        test_suites.test_it_can_be_recorded_and_restored,
        test_suites.test_one_sentence_says_what_it_measures,
        test_suites.test_it_refuses_data_and_splits_that_it_does_not_have,
    ):
        (mark,) = [each for each in contract.pytestmark if each.name == "parametrize"]
        assert [*mark.args[1]] == [name for name in found if name != "sure"]  # as found earlier
        contract("sure")


def test_what_it_accepts_is_read_from_its_entry(sure):
    with pytest.raises(ValueError, match="the suite sure has its own data"):
        suite_of("sure", SuiteRequest(data="x.jsonl"))
    with pytest.raises(ValueError, match="the suite sure has no split 'news', it has none"):
        suite_of("sure", SuiteRequest(split="news"))


def test_an_unknown_suite_is_an_error_with_a_suggestion(capsys):
    assert run(["evaluate", "lab", "--suite", "tofuu"]) == 2
    assert "tofu" in capsys.readouterr().err
