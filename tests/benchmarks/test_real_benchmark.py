"""The benchmark of real models runs on the lab's model; the numbers are in its record."""

import json
import sys

import pytest

from tests.benchmarks.test_step_benchmarks import last_line

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
FIGURES = {
    "npo_speedup", "npo_over_floor", "rmu_speedup", "ilu_gradient_over_npo",
    "ilu_gradient_extra_copies", "choice_speedup", "generation_speedup", "cell_compute_share",
    "first_step_cpu_seconds",
}  # fmt: skip


def test_every_figure_is_measured_and_both_sides_agree(tmp_path):
    pytest.importorskip("lm_eval")
    found = last_line("real.py", tmp_path, "--json")
    assert set(found) >= FIGURES
    assert all(value > 0 for value in found.values())
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["ratios"] == found
    for method in ("npo", "graddiff", "rmu"):
        ours, usual = record["measured"]["steps"][method]["first_losses"]
        assert ours == pytest.approx(usual, rel=1e-4, abs=1e-5)
    # The cost of the penalty in memory: its gradient and the weights to put back.
    assert 1.8 < found["ilu_gradient_extra_copies"] < 2.6
    assert found["cell_compute_share"] < 1
