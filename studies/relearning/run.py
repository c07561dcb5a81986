"""Does distillation into a noised copy make forgetting survive relearning, and what does it cost?

    python -m studies.relearning.run DIR [--seeds 3] [--workers 1] [--methods rmu npo rmu-ilu]

On the lab, each method alone and followed by UNDO (arXiv 2506.06278) at a grid of noise shares and
distillation steps. Every model is measured after unlearning, after each of the six downstream
fine-tunings, after one on the validation task `next`, and after relearning from the documents of
20 agents. A second run on the finished model adds relearning from half of the agents, measured on
the other half (RTT), and three more settings of the attacker. The original model and the one that
never saw the agents are attacked alike: the latter is the ceiling. `--methods` takes any recipe;
tar and sam are RMU with these. Cost is a share of that of pretraining, 2400 steps of 32 examples of
64 tokens. The same command again does only what is missing; `--attacks-only` unlearns nothing and
attacks the models that are finished.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from ilu.lab.sources import Corpus
from ilu.lab.tasks import TASKS, VALIDATION
from ilu.methods.robust.undo import DISTIL
from ilu.models.named import LAB, NEVER
from ilu.recipes import lab
from ilu.recipes.build import build
from ilu.runs.recipe import Recipe
from ilu.runs.sweep.local import run_all
from ilu.system.atomic import write_json, write_text
from ilu.training.fit import Optim
from studies.relearning.cells import (
    ORIGINAL,
    QUESTIONS,
    TINY_QUESTIONS,
    TINY_STEPS,
    Cell,
    cells,
    place,
)
from studies.relearning.further import further_jobs
from studies.relearning.picture import FIGURE, write_figure
from studies.relearning.table import RESULTS, record, recorded_rows, to_markdown

METHODS = ("rmu", "npo", "rmu-ilu")
NOISE = (0.3, 0.45, 0.6, 0.8)
SCALE = 0.1
STEPS = (530,)
TUNE, RELEARN = 60, 30
TINY = {"steps": 2, "distil_steps": 2, "batch_size": 2, "distil_batch_size": 2}
"""Settings that only show whether the study works."""


def recipe_of(cell: Cell, seed: int, *, tiny: bool) -> Recipe:
    """The recipe of a cell with every attack."""
    count = TINY_QUESTIONS if tiny else QUESTIONS
    tune, relearn = (TINY_STEPS, TINY_STEPS) if tiny else (TUNE, RELEARN)
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


def jobs(
    out: Path, wanted: Sequence[Cell], seeds: int, *, tiny: bool = False
) -> dict[Path, Recipe]:
    """Every run, all cells of a seed first."""
    return {
        place(out, cell, seed): recipe_of(cell, seed, tiny=tiny)
        for seed in range(seeds)
        for cell in wanted
    }


class Report(NamedTuple):
    """Where the runs are, which of them count, and the file of the record."""

    out: Path
    cells: Sequence[Cell]
    seeds: int
    table: Path

    def write(self) -> None:
        """Write the record, the same as a table, and the picture; rows of other cells stay."""
        found = record(self.out, self.cells, self.seeds, recorded_rows(self.table))
        write_json(self.table, found)
        write_text(self.table.with_suffix(".md"), to_markdown(found))
        figure = FIGURE if self.table == RESULTS else self.table.with_suffix(".svg")
        write_figure(found, figure)


def main() -> None:
    """Unlearn and attack what is missing, then attack every finished model further."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--noise", nargs="*", type=float, default=NOISE)
    parser.add_argument("--steps", nargs="+", type=int, default=STEPS, help="of the distillation")
    parser.add_argument("--table", type=Path, default=RESULTS)
    parser.add_argument("--attacks-only", action="store_true", help="attack finished models")
    parser.add_argument("--tiny", action="store_true", help="two steps, to try it")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    chosen = cells(wanted.methods, wanted.noise, wanted.steps)
    table = wanted.out / "tiny.json" if wanted.tiny else wanted.table
    report = Report(wanted.out, chosen, wanted.seeds, table)
    planned = jobs(wanted.out, chosen, wanted.seeds, tiny=wanted.tiny)
    carry_out({} if wanted.attacks_only else planned, wanted.workers, report)
    attacks = further_jobs(wanted.out, chosen, wanted.seeds, tiny=wanted.tiny)
    carry_out(attacks, wanted.workers, report)


def carry_out(planned: Mapping[Path, Recipe], workers: int, report: Report) -> None:
    """Carry out what is missing of these runs; write the record after each."""
    for ended in run_all(planned, workers=workers):
        print(ended.path.name, ended.error or "done", flush=True)
        report.write()


if __name__ == "__main__":
    main()
