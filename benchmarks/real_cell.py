"""A whole cell on a real model, and what happens before the first step of ``ilu unlearn``.

A cell loads the model, scores it, unlearns facts, attacks the result, scores it after each, and
writes the report. Processor seconds are divided into those of forward and backward passes and all
others: loading, tokenising, hashing, the optimiser, saving, and the report.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ilu.attacks.finetune import FineTune
from ilu.data.facts.sources import FactDocuments, FactItems, FactQuestions
from ilu.data.stream import Feed
from ilu.evals.metrics.multiple_choice import Choice
from ilu.models import forward, lm_head_loss
from ilu.models.load import model_path
from ilu.recipes.build import build
from ilu.runs.recipe import Recipe
from ilu.runs.report.formats import write_report
from ilu.runs.results.forget_metric import OTHERS
from ilu.runs.run import Options, run
from ilu.training.fit import Optim
from ilu.types import Attack


@dataclass(frozen=True)
class Counts:
    """The size of a cell."""

    steps: int = 12
    attack_steps: int = 8
    questions: int = 30


class Clock:
    """Processor seconds inside the outermost of the watched functions, by their name."""

    def __init__(self) -> None:
        self.took: dict[str, float] = {}
        self.depth = 0

    def watched(self, name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, timed unless a watched one has called it."""

        def outer(*given: Any, **more: Any) -> Any:
            self.depth += 1
            began = time.process_time()
            try:
                return inner(*given, **more)
            finally:
                self.depth -= 1
                if not self.depth:
                    took = time.process_time() - began
                    self.took[name] = self.took.get(name, 0.0) + took

        return outer


@contextmanager
def clocked() -> Generator[Clock]:
    """Time modules, the losses of the output layer, and backward passes while the block runs."""
    clock = Clock()
    places: list[tuple[Any, str, str]] = [
        (nn.Module, "__call__", "forward"),
        (forward, "tokens_of", "forward"),
        (lm_head_loss, "tokens_of", "forward"),
        (torch.Tensor, "backward", "backward"),
    ]
    before = [getattr(owner, name) for owner, name, _ in places]
    for (owner, name, kind), inner in zip(places, before, strict=True):
        setattr(owner, name, clock.watched(kind, inner))
    try:
        yield clock
    finally:
        for (owner, name, _), inner in zip(places, before, strict=True):
            setattr(owner, name, inner)


def recipe(model: str, counts: Counts) -> Recipe:
    """NPO of the facts of a topic, then relearning and fine-tuning on other facts."""
    settings = {
        "model": model, "forget": "facts:capitals", "retain": "facts:rest",
        "limit": counts.questions, "steps": counts.steps, "passes": None,
    }  # fmt: skip
    return replace(build("npo", settings), attacks=attacks(counts))


def attacks(counts: Counts) -> dict[str, Attack]:
    """Documents of half of the facts, with questions about the other half; other documents."""
    items = FactItems("facts:capitals/b", counts.questions)
    goals = {OTHERS: Choice(FactQuestions(items), batch_size=16)}
    optim = Optim(lr=3e-5, steps=counts.attack_steps)

    def attack(name: str) -> FineTune:
        own = goals if "capitals" in name else {}
        return FineTune(Feed(FactDocuments(name), 8), optim, own, only_end=True)

    return {n.partition(":")[2].replace("/", "-"): attack(n)
            for n in ("facts:capitals/a", "facts:animals", "facts:elements")}  # fmt: skip


def carry_out(model: str, counts: Counts, folder: Path) -> None:
    """The cell and its report."""
    out = run(recipe(model, counts), folder / "cell", Options())
    if out.failures():
        raise RuntimeError(f"attacks failed: {out.failures()}")
    write_report([out.path], folder / "report.html")


def cell(model: str, counts: Counts, folder: Path) -> dict[str, float]:
    """Processor seconds of a cell, by kind."""
    began = time.process_time()
    with clocked() as clock:
        carry_out(model, counts, folder)
    found = {**clock.took, "all": time.process_time() - began}
    print("cell", *(f"{name} {value:.2f} s" for name, value in found.items()), flush=True)
    return found


FIRST_STEP = """
import json, sys, time
from ilu.cli import main
from ilu.runs import prepare, run
from ilu.training import fit
took = {}
def timed(owner, name):
    inner = getattr(owner, name)
    def outer(*given, **more):
        began = time.process_time()
        found = inner(*given, **more)
        took[name] = took.get(name, 0.0) + time.process_time() - began
        return found
    setattr(owner, name, outer)
def first(*given, **more):
    print(json.dumps({"all": time.process_time(), **took}), flush=True)
    raise SystemExit(0)
for name in ("load_tokenizer", "open_streams", "loaded", "try_losses", "fingerprint_model"):
    timed(prepare, name)
for name in ("cautions", "evaluate_once"):
    timed(run, name)
fit.accumulate = first
main.run(sys.argv[1:])
"""
"""Ends at the first step; some parts of what comes before it are timed."""
PLAIN = """
import sys, time
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
AutoTokenizer.from_pretrained(sys.argv[1])
AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
print(time.process_time())
"""
"""What Transformers takes to load the same model and its tokenizer, with its imports."""


def first_step(model: str, folder: Path) -> dict[str, float]:
    """Processor seconds of ``ilu unlearn`` up to its first step, by part.

    The scores before unlearning (``evaluate_once``) are of two questions, and of free text.
    """
    command = [
        sys.executable, "-c", FIRST_STEP, "unlearn", "npo", "--model", model,
        "--forget", "facts:capitals", "--retain", "facts:rest", "--limit", "2",
        "--no-sample-texts", "--out", str(folder / "first"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    if not lines or not lines[-1].startswith("{"):
        raise RuntimeError(f"no first step: {done.stderr[-2000:]}")
    return json.loads(lines[-1])


def first_steps(model: str, folder: Path, turns: int) -> dict[str, float]:
    """The least of several processes; the first fills the caches."""
    found = [first_step(model, folder / str(i)) for i in range(turns)]
    least = min(found, key=lambda each: each["all"] - each["evaluate_once"])
    command = [sys.executable, "-c", PLAIN, model_path(model)]
    plain = (subprocess.run(command, capture_output=True, text=True, check=True) for _ in found)
    return {**least, "plain_loading": min(float(done.stdout.split()[-1]) for done in plain)}


def ratios(cell: dict[str, float], first: dict[str, float]) -> dict[str, float]:
    """The share of passes in a cell, and the seconds before the first step that are ours.

    These are the ones beyond what Transformers takes to load model and tokenizer, without scores.
    """
    return {
        "cell_compute_share": (cell["forward"] + cell["backward"]) / cell["all"],
        "first_step_cpu_seconds": first["all"] - first["evaluate_once"] - first["plain_loading"],
        "first_step_scores_cpu_seconds": first["evaluate_once"],
    }
