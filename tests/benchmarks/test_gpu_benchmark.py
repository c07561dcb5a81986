"""The GPU benchmark at toy size: every row, and without what a GPU machine may lack."""

import json
import subprocess
import sys

from tests.conftest import ROOT

RUN = """
import runpy, sys
for missing in ("datasets", "torchao", "rich", "pyarrow", "jinja2", "matplotlib"):
    sys.modules[missing] = None
sys.path.insert(0, "benchmarks")
sys.argv = ["gpu.py", "--toy", "--device", "cpu", "--out", sys.argv[1]]
runpy.run_path("benchmarks/gpu.py", run_name="__main__")
"""


def test_every_row_is_measured_or_says_why_not(tmp_path):
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-c", RUN, str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    skipped = {row["saving"]: row["skipped"] for row in record["rows"] if "skipped" in row}
    assert set(skipped) == {"adamw8bit", "adamw-bf16"}
    assert all("torchao" in why for why in skipped.values())
    measured = [row for row in record["rows"] if "skipped" not in row]
    assert {row["method"] for row in measured} >= {"npo-ilu", "rmu", "rmu-ilu", "graddiff"}
    assert {row["weights"] for row in measured} == {"full", "lora"}
    assert all(row["tokens_per_second"] > 0 for row in measured)
