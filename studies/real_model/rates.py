"""Does unrelated fine-tuning bring back what a real language model was made to forget?

    ILU_HUB=../shared/hub python -m studies.real_model.rates DIR [--topics capitals]
        [--families original rmu npo] [--seeds 0] [--workers 1] [--table results/real_model_rates]

SmolLM2-135M-Instruct forgets one topic of `facts` with the default settings. Then it is fine-tuned
on three downstream tasks, and on the documents of half of the facts, at three learning rates each.
`original` is the model before unlearning under the same attacks. The same command again does only
what is missing.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ilu.recipes.build import build
from ilu.recipes.free_text import PERPLEXITY, wikitext
from ilu.runs.recipe import Recipe
from ilu.runs.results.forget_metric import FORGET, OTHERS, TASK, UTILITY
from ilu.runs.run_dir import RunDir
from ilu.runs.sweep.local import run_all
from ilu.system.atomic import write_json
from ilu.system.provenance import environment
from ilu.system.scores import Score
from studies.real_model.attackers import ORIGINAL, grid, untouched

RESULTS = Path(__file__).parents[2] / "results" / "real_model_rates.json"
MODEL = "smollm2"
LIMIT = 100


class Cell(NamedTuple):
    """One run: a way of unlearning, what it forgets, and a seed."""

    family: str
    topic: str
    seed: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.topic}-{self.family}-seed{self.seed}"


def recipe(cell: Cell) -> Recipe:
    """Unlearning with the default settings, or none, and the attacks after it."""
    method = "graddiff" if cell.family == ORIGINAL else cell.family
    settings = {"model": MODEL, "forget": f"facts:{cell.topic}", "retain": "facts:rest"}
    made = build(method, {**settings, "limit": LIMIT, "seed": cell.seed})
    kept = {name: made.metrics[name] for name in (FORGET, UTILITY)}
    measured = {**kept, **wikitext()}
    attacks = grid(cell.topic, cell.seed)
    made = replace(made, metrics=measured, slow_metrics={}, attacks=attacks)
    return untouched(made, attacks) if cell.family == ORIGINAL else made


def rows(cell: Cell, run: RunDir) -> list[dict[str, Any]]:
    """What was measured before, after, and after each attack."""
    stages = [s for s in ("before", "after") if run.has(f"scores/{s}")]
    stages += [f"{a}-end" for a in run.read("recipe")["attacks"] if run.has(f"scores/{a}-end")]
    return [{**cell._asdict(), "stage": stage, **measured(run.scores(stage))} for stage in stages]


def measured(scores: Mapping[str, Score]) -> dict[str, Any]:
    """The numbers of a stage: value and standard error."""
    names = {FORGET: "accuracy", OTHERS: "accuracy_other_half", UTILITY: "utility", TASK: TASK}
    found: dict[str, Any] = {
        name: [round(scores[key].value, 4), round(scores[key].stderr, 4)]
        for key, name in names.items()
        if key in scores
    }
    if PERPLEXITY in scores:
        found["perplexity"] = round(scores[PERPLEXITY].value, 2)
    return found


def main() -> None:
    """Carry out what is missing, and write the table of what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, metavar="DIR")
    parser.add_argument("--topics", nargs="+", default=["capitals"])
    parser.add_argument("--families", nargs="+", default=[ORIGINAL, "rmu", "npo"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--table", type=Path, default=RESULTS)
    given = parser.parse_args()
    cells = [
        Cell(family, topic, seed)
        for topic in given.topics for family in given.families for seed in given.seeds
    ]  # fmt: skip
    paths = {given.out / cell.name: cell for cell in cells}
    for outcome in run_all({p: recipe(c) for p, c in paths.items()}, workers=given.workers):
        print(outcome.path.name, outcome.error or "done", flush=True)
        found = [r for p, c in paths.items() if p.is_dir() for r in rows(c, RunDir(p))]
        command = "python -m studies.real_model.rates DIR"
        record = {"command": command, "model": MODEL, "rows": found}
        write_json(given.table, {**record, "environment": environment()})


if __name__ == "__main__":
    main()
