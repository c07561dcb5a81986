"""Every study is a folder with a README.md and a ``run.py`` that starts."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUDIES = sorted(path.parent.name for path in (ROOT / "studies").glob("*/run.py"))


def test_every_folder_is_a_study():
    folders = {p.name for p in (ROOT / "studies").iterdir() if p.is_dir() and p.name[0].isalpha()}
    assert folders == {*STUDIES}
    assert len(STUDIES) >= 15


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_says_how_it_is_run(study, monkeypatch, capsys):
    command = f"python -m studies.{study}.run"
    module = importlib.import_module(f"studies.{study}.run")
    assert command in (module.__doc__ or "")
    assert command in (ROOT / "studies" / study / "README.md").read_text(encoding="utf-8")
    monkeypatch.setattr(sys, "argv", [command, "--help"])
    with pytest.raises(SystemExit, match="0"):
        module.main()
    assert "usage" in capsys.readouterr().out


def test_a_study_starts_from_the_root_of_the_repository():
    command = [sys.executable, "-m", "studies.demo_curves.run", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "The picture in the README" in done.stdout


@pytest.mark.parametrize("study", STUDIES)
def test_the_records_that_a_study_names_exist(study):
    """Its README names the files in results/ that it wrote; a study that has not run says so."""
    text = (ROOT / "studies" / study / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"\b(?:results|docs)/[\w./-]*\w", text)
    assert named or "not been run" in text
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_table_of_records_lists_every_record_and_no_other():
    text = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    listed = {
        re.split(r"[./]", name)[0] for row in rows for name in re.findall(r"`(\w[\w./-]*)`", row)
    }
    there = {p.stem for p in (ROOT / "results").iterdir() if p.name != "README.md"}
    assert listed == there
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert [x for x in links if not (ROOT / "results" / x).exists()] == []
