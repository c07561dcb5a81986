"""Of several processes of one run, the first speaks for all."""

import warnings

import pytest

from ilu.cli import unlearn
from ilu.cli.terminal import warn_in_a_line


@pytest.mark.parametrize(("rank", "says"), [(None, True), ("0", True), ("1", False)])
def test_only_the_first_process_warns(rank, says, monkeypatch, capsys):
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    with warnings.catch_warnings():
        warn_in_a_line()
        warnings.showwarning("too short", UserWarning, unlearn.__file__, 1)
    assert ("warning: too short" in capsys.readouterr().err) == says


def test_only_the_first_process_writes_the_card_and_the_outcome(monkeypatch, tmp_path):
    monkeypatch.setattr(unlearn, "carry_out", lambda recipe, place: None)
    monkeypatch.setenv("RANK", "1")
    unlearn.main(["npo", "--model", "lab", "--out", str(tmp_path / "run")])
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(AttributeError):  # the first goes on to read the run, which is None here
        unlearn.main(["npo", "--model", "lab", "--out", str(tmp_path / "run")])
