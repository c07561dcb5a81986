"""An attack is one file: found by walking the package, with no other file touched."""

import sys

import pytest

import ilu.attacks
from ilu.attacks.registry import attack_kinds, label
from ilu.attacks.weight_edit import WeightEdit
from ilu.cli.main import run
from ilu.cli.methods_page import page
from ilu.recipes.attacks import Attacker
from ilu.training.fit import Optim
from tests.pages import example

FILE = example("attacks.md", "ATTACKS")


@pytest.fixture
def shrink(tmp_path, monkeypatch):
    """A file in a folder that belongs to the package for one test."""
    (tmp_path / "shrink.py").write_text(FILE)
    monkeypatch.setattr(ilu.attacks, "__path__", [*ilu.attacks.__path__, str(tmp_path)])
    yield attack_kinds()["shrink"]
    sys.modules.pop("ilu.attacks.shrink", None)


def test_an_attack_of_one_file_is_found_by_its_name(shrink, tiny):
    attack = Attacker(optim=Optim(lr=1e-3, steps=1))("shrink:0.25")
    assert isinstance(attack, WeightEdit)
    before = tiny.lm_head.weight.detach().clone()
    attack.change(tiny)
    assert tiny.lm_head.weight.equal(0.75 * before)
    assert label("shrink:0.25") == "shrink-0.25"
    with pytest.raises(ValueError, match="attack 'shrink:all': 'all' is no number"):
        Attacker(optim=Optim(lr=1e-3, steps=1))("shrink:all")


def test_the_command_line_and_the_page_list_it(shrink, capsys):
    assert run(["methods"]) == 0
    assert "Shrink" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(["attack", "--help"])
    assert "shrink:0.5 Shrink every weight by a share." in capsys.readouterr().out
    text = page()
    assert "* `shrink`: Shrink every weight by a share." in text
    assert "### Shrink\n\n`ilu.attacks.shrink`\n" in text


def test_the_contract_tests_walk_to_it(shrink):
    from tests.contracts.test_attacks import kinds

    assert "shrink" in {parameter.id for parameter in kinds()}


def test_it_is_unknown_without_its_file():
    assert "shrink" not in attack_kinds()
    with pytest.raises(ValueError, match="unknown task 'shrink:"):
        Attacker(optim=Optim(lr=1e-3, steps=1))("shrink:0.25")


def test_two_files_cannot_define_one_name(tmp_path, monkeypatch):
    (tmp_path / "second.py").write_text('ATTACKS = {"noise": None}\n')
    monkeypatch.setattr(ilu.attacks, "__path__", [*ilu.attacks.__path__, str(tmp_path)])
    with pytest.raises(ValueError, match=r"second defines 'noise', like another file"):
        attack_kinds()
    sys.modules.pop("ilu.attacks.second", None)
