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


def test_only_the_first_process_prints_the_outcome(monkeypatch, tmp_path):
    printed = []
    monkeypatch.setattr(unlearn, "carry_out", lambda recipe, place, finish: None)
    monkeypatch.setattr(unlearn, "summarise", lambda out: printed.append("scores"))
    monkeypatch.setattr(unlearn, "check_outcome", lambda out, required: printed.append("outcome"))
    for rank, expected in (("1", []), ("0", ["scores", "outcome"])):
        monkeypatch.setenv("RANK", rank)
        unlearn.main(["npo", "--model", "lab", "--out", str(tmp_path / "run")])
        assert printed == expected
