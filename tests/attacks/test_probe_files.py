"""A prompting attack is one file: found by walking the package, with no other file touched."""

import sys

import pytest

import ilu.attacks.prompting as package
from ilu.cli.main import run
from ilu.cli.methods_page import page
from ilu.recipes.probes import lab, probes
from ilu.recipes.suite_request import SuiteRequest

FILE = '''
"""The plain questions once more."""

from ilu.attacks.prompting.kind import ProbeInputs, ProbeKind
from ilu.attacks.prompting.prompts import Wordings


def again(inputs: ProbeInputs, argument: str) -> Wordings:
    """Ask the plain question again."""
    return Wordings("again", (inputs.questions,))


PROBES = {"again": ProbeKind(again)}
'''


@pytest.fixture
def again(tmp_path, monkeypatch):
    (tmp_path / "again.py").write_text(FILE)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    yield
    sys.modules.pop("ilu.attacks.prompting.again", None)


@pytest.mark.usefixtures("again")
def test_a_prompting_attack_of_one_file_is_found_and_listed(capsys):
    assert list(probes(SuiteRequest(), ["again"])) == ["again"]
    assert "again" in lab()
    assert run(["methods"]) == 0
    assert "again" in capsys.readouterr().out.split()
    with pytest.raises(SystemExit):
        run(["attack", "--help"])
    assert "* again: Ask the plain question again." in capsys.readouterr().out
    assert "* `again`: Ask the plain question again." in page()


def test_an_argument_that_is_not_read_is_refused():
    with pytest.raises(ValueError, match="probe 'lens:3': leave out what follows the colon"):
        probes(SuiteRequest(), ["lens:3"])
    with pytest.raises(ValueError, match="unknown probe 'lenz'; did you mean 'lens'"):
        probes(SuiteRequest(), ["lenz"])


def test_cloze_questions_of_the_user_have_no_linear_probe(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"question": "q", "choices": ["a", "b"], "answer": 0}\n' * 2)
    data = str(tmp_path / "q.jsonl")
    letters, cloze = (
        set(probes(SuiteRequest(data=data, form=form))) for form in ("letters", "cloze")
    )
    assert letters - cloze == {"probe"}
    assert set(probes(SuiteRequest())) - letters == {"ablate"}
