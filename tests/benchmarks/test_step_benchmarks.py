"""The benchmarks of a step run at sizes that measure nothing; the numbers are in their records."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
FIGURES = {"npo_speedup", "npo_memory_ratio", "rmu_speedup", "graddiff_speedup", "simnpo_speedup"}


def last_line(script, tmp_path, *more):
    command = [sys.executable, str(ROOT / "benchmarks" / script), "--tiny", "--turns", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "record.json"), *more],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_steps_end_with_one_object_and_first_losses_agree(tmp_path):
    found = last_line("steps.py", tmp_path, "--json")
    assert {*FIGURES, "ilu_over_npo"} <= set(found)
    assert all(value > 0 for value in found.values())
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["ratios"] == found
    for row in (record["measured"]["rmu"], record["measured"]["large"]["npo"]):
        assert row["first_losses"][0] == pytest.approx(row["first_losses"][1], rel=1e-4, abs=1e-5)


def test_cost_against_size_doubles_what_it_says(tmp_path):
    last_line("size.py", tmp_path)
    rows = json.loads((tmp_path / "record.json").read_text())["rows"]
    assert set(rows) == {"tokens", "rows", "layers", "vocabulary", "vocabulary, blocks"}
    assert [row["tokens"] for row in rows["tokens"]] == [8, 16]


def test_growth_doubles_what_it_says_and_is_drawn(tmp_path):
    found = last_line("growth.py", tmp_path, "--series", "step, texts", "choice, questions")
    assert set(found) == {"step, texts", "choice, questions"}
    rows = json.loads((tmp_path / "record.json").read_text())["rows"]
    assert [row["batch"] for row in rows["step, texts"]] == [4, 8]
    assert all(row["mib"] > 0 for each in rows.values() for row in each)
    assert (tmp_path / "record.svg").read_text().startswith("<svg")


def test_what_reads_no_padding_has_the_same_first_losses(tmp_path):
    last_line("packing.py", tmp_path)
    rows = json.loads((tmp_path / "record.json").read_text())["rows"]
    assert [row["padding"] > 0 for row in rows] == [False, True, True]
    for row in rows:
        assert row["first_losses"][1] == pytest.approx(row["first_losses"][0], rel=1e-4)


def test_what_saves_memory_of_weights_keeps_the_numbers(tmp_path):
    last_line("lean.py", tmp_path)
    rows = json.loads((tmp_path / "record.json").read_text())["rows"]
    by = {(row["objective"], row["settings"]): row for row in rows}
    assert len(by) == 4
    for (objective, _), row in by.items():
        assert row["last_grad_norm"] == by[objective, "as it is"]["last_grad_norm"] > 0
        assert row["mib"] > 0
