"""Does distillation into a noised copy make forgetting survive relearning, and what does it cost?

    python -m studies.relearning.run DIR [--seeds 3] [--workers 1] [--methods rmu npo rmu-ilu]

On the lab, each method alone and followed by UNDO (arXiv 2506.06278) at a grid of noise shares and
distillation steps. Every model is measured after unlearning, after each of the six downstream
fine-tunings, after one on the validation task `next`, and after relearning from the documents of
20 agents. The original model and the one that never saw the agents are attacked alike: the latter
is the ceiling. `--methods` takes any recipe; tar and sam are RMU with these. Cost is a share of
that of pretraining, 2400 steps of 32 examples of 64 tokens. The same command again does only what
is missing.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ilu.evals.score import mean
from ilu.lab.build import Plan
from ilu.lab.corpus import CONTEXT
from ilu.lab.sources import Corpus
from ilu.lab.tasks import TASKS, VALIDATION
from ilu.methods.robust.undo import DISTIL
from ilu.models.named import LAB, NEVER
from ilu.recipes import lab
from ilu.recipes.build import build
from ilu.runs.recipe import Recipe, read_recipe
from ilu.runs.results.forget_metric import OTHERS, UTILITY
from ilu.runs.results.summary import forgotten_share
from ilu.runs.run_dir import RunDir
from ilu.runs.sweep.local import run_all
from ilu.system.atomic import write_json, write_text
from ilu.system.provenance import environment
from ilu.training.fit import Optim
from studies.ilu_vs_baselines.differences import interval

RESULTS = Path(__file__).parents[2] / "results" / "relearning.json"
METHODS = ("rmu", "npo", "rmu-ilu")
SHORT = {"tar": "rmu-tar", "sam": "rmu-sam"}
"""Robust training by its own name -> the recipe that is studied."""
NOISE = (0.3, 0.45, 0.6, 0.8)
SCALE = 0.1
STEPS = (530,)
ORIGINAL = "original"
TUNE, RELEARN, QUESTIONS = 60, 30, 240
TINY = {"steps": 2, "distil_steps": 2, "batch_size": 2, "distil_batch_size": 2}
"""Settings that only show whether the study works."""


class Cell(NamedTuple):
    """A method, followed by UNDO unless ``noise`` is None."""

    method: str
    noise: float | None = None
    steps: int | None = None

    @property
    def label(self) -> str:
        """The name of its runs."""
        undo = "" if self.noise is None else f"-undo-{self.noise:g}-{self.steps}"
        return f"{self.method}{undo}"


def cells(methods: Sequence[str], noise: Sequence[float], steps: Sequence[int]) -> list[Cell]:
    """The models without unlearning, then each method alone and with every setting of UNDO."""
    methods = [SHORT.get(m, m) for m in methods]
    undone = [Cell(m, share, count) for m in methods for count in steps for share in noise]
    return [Cell(ORIGINAL), Cell(NEVER), *map(Cell, methods), *undone]


def recipe_of(cell: Cell, seed: int, *, tiny: bool) -> Recipe:
    """The recipe of a cell with every attack."""
    count = 8 if tiny else QUESTIONS
    tune, relearn = (2, 2) if tiny else (TUNE, RELEARN)
    attacks = {
        **{task.name: lab.finetune(task.name, tune, seed) for task in (*TASKS, VALIDATION)},
        "relearn": lab.relearn(relearn, count, seed),
    }
    ended = {name: replace(each, only_end=True) for name, each in attacks.items()}
    made = unlearned(cell, seed, tiny=tiny)
    return replace(made, name=cell.label, metrics=lab.metrics(count), attacks=ended)


def unlearned(cell: Cell, seed: int, *, tiny: bool) -> Recipe:
    """The unlearning and distillation of a cell, with the lab's defaults of its method."""
    if cell.method in (ORIGINAL, NEVER):
        nothing = Optim(lr=1e-3, steps=0)
        made = build("rmu", {"model": LAB, "seed": seed})
        model = NEVER if cell.method == NEVER else LAB
        return replace(made, model=model, objective={}, data={}, optim=nothing)
    own = {k: v for k, v in TINY.items() if not k.startswith(DISTIL)} if tiny else {}
    settings = {"model": LAB, "seed": seed, **own}
    if cell.noise is None:
        return build(cell.method, settings)
    undo = {"noise_share": cell.noise, "noise_scale": SCALE, "distil_steps": cell.steps}
    made = build(f"{cell.method}-undo", {**settings, **undo, **(TINY if tiny else {})})
    return shortened(made) if tiny else made


def shortened(recipe: Recipe) -> Recipe:
    """The recipe with one epoch of the corpus."""
    feed = replace(recipe.data[DISTIL], source=Corpus("agents", epochs=1))
    return replace(recipe, data={**recipe.data, DISTIL: feed})


def place(out: Path, cell: Cell, seed: int) -> Path:
    """Folder of a run."""
    return out / f"{cell.label}-seed{seed}"


def jobs(
    out: Path, wanted: Sequence[Cell], seeds: int, *, tiny: bool = False
) -> dict[Path, Recipe]:
    """Every run, all cells of a seed first."""
    return {
        place(out, cell, seed): recipe_of(cell, seed, tiny=tiny)
        for seed in range(seeds)
        for cell in wanted
    }


class Cost(NamedTuple):
    """Tokens that are trained on, and tokens that the unlearned model reads for its copy."""

    trained: float
    read: float

    @property
    def share(self) -> float:
        """Trained tokens as a share of those of pretraining."""
        return self.trained / pretraining()

    @property
    def compute_share(self) -> float:
        """The same of computation: training on a token costs three times as much as reading it."""
        return (3 * self.trained + self.read) / (3 * pretraining())


def pretraining() -> int:
    """Tokens that the lab's model is pretrained on."""
    return Plan().optim.steps * Plan().batch_size * CONTEXT


def cost(run: RunDir) -> Cost:
    """The cost of a run's trainings; those of the penalty and of adversaries are not."""
    recipe, data = read_recipe(run.file("recipe")), run.read("data")

    def tokens(of: Recipe, steps: int) -> float:
        streams = {term.on for term in of.objective.values()}
        sizes = {name: data[name]["tokens"] / data[name]["examples"] for name in streams}
        return steps * sum(recipe.data[name].batch_size * sizes[name] for name in streams)

    first, stage = tokens(recipe, len(run.rows("train"))), recipe.distillation()
    copied = tokens(stage, len(run.rows("undo"))) if stage else 0.0
    return Cost(first + copied, copied)


def numbers(run: RunDir) -> dict[str, float]:
    """What one run shows, as shares that are forgotten but for the utility and the costs."""
    tasks = {task.name: forgotten_share(run, f"{task.name}-end") for task in TASKS}
    found = cost(run)
    return {
        "forgotten": forgotten_share(run, "after"),
        "utility": run.scores("after")[UTILITY].value,
        "still_forgotten": mean(list(tasks.values())),
        **{f"after {task}": share for task, share in tasks.items()},
        f"after {VALIDATION.name}": forgotten_share(run, f"{VALIDATION.name}-end"),
        "relearned": forgotten_share(run, "relearn-end", OTHERS),
        "cost_share": found.share,
        "compute_share": found.compute_share,
        "seconds": run.read("cost")["seconds"],
    }


def row(out: Path, cell: Cell, seeds: int) -> dict[str, Any] | None:
    """Means over the seeds whose attacks have all succeeded; `relearned` with its 95 % interval."""
    every = [RunDir(place(out, cell, seed)) for seed in range(seeds)]
    runs = [run for run in every if run.has("done") and not run.failures()]
    if not runs:
        return None
    found = [numbers(run) for run in runs]
    means = {key: mean([each[key] for each in found]) for key in found[0]}
    relearned = [each["relearned"] for each in found]
    low, high = interval(relearned) or (None, None)
    return {
        "method": cell.method,
        "noise": cell.noise,
        "steps": cell.steps,
        "seeds": len(runs),
        **means,
        "relearned": [means["relearned"], low, high],
        "commits": sorted({run.read("environment")["commit"] for run in runs}),
    }


COLUMNS = ("forgotten", "utility", "still_forgotten", f"after {VALIDATION.name}", "relearned",
           "cost_share", "compute_share", "seconds")  # fmt: skip


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows for readers."""
    head = ("method", "noise", "steps", "seeds", *COLUMNS)
    lines = [
        (
            r["method"],
            *(str(r[key] or "-") for key in head[1:4]),
            *(cell(r[key]) for key in COLUMNS),
        )
        for r in rows
    ]
    table = (head, ("---",) * len(head), *lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in table)


def cell(value: Any) -> str:
    """A mean, with its interval where there is one."""
    if not isinstance(value, list):
        return f"{value:.3f}"
    middle, low, high = value
    return f"{middle:.3f}" if low is None else f"{middle:.3f} ({low:.3f} to {high:.3f})"


def write(out: Path, wanted: Sequence[Cell], seeds: int, table: Path) -> None:
    """The record, and the same as a table."""
    rows = [found for each in wanted if (found := row(out, each, seeds))]
    ceiling = next((r for r in rows if r["method"] == NEVER), None)
    write_json(table, {
        "command": "python -m studies.relearning.run DIR",
        "environment": {**environment(), "argv": None},
        "ceiling": ceiling,
        "rows": [r for r in rows if r is not ceiling],
    })  # fmt: skip
    write_text(table.with_suffix(".md"), to_markdown(rows))


def main() -> None:
    """Carry out what is missing; write the table after every run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--noise", nargs="*", type=float, default=NOISE)
    parser.add_argument("--steps", nargs="+", type=int, default=STEPS, help="of the distillation")
    parser.add_argument("--table", type=Path, default=RESULTS)
    parser.add_argument("--tiny", action="store_true", help="two steps, to try it")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    chosen = cells(wanted.methods, wanted.noise, wanted.steps)
    table = wanted.out / "tiny.json" if wanted.tiny else wanted.table
    planned = jobs(wanted.out, chosen, wanted.seeds, tiny=wanted.tiny)
    for ended in run_all(planned, workers=wanted.workers):
        print(ended.path.name, ended.error or "done", flush=True)
        write(wanted.out, chosen, wanted.seeds, table)


if __name__ == "__main__":
    main()
