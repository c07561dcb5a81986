"""A run records the commit and the changes of the checkout whose code it used."""

import subprocess
from pathlib import Path

import pytest

import ilu
from ilu.system.provenance import environment, git

ROOT = Path(ilu.__file__).parents[2]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the package is not in a checkout")
def test_the_recorded_commit_is_that_of_the_checkout():
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert len(head) == 40
    assert environment()["commit"] == head
    assert git("rev-parse", "--show-toplevel").strip() == str(ROOT.resolve())
