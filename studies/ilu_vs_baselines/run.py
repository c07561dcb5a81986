"""Does forgetting survive unrelated fine-tuning, and what of ILU helps? Against tuned baselines.

    python -m studies.ilu_vs_baselines.run DIR [--seeds 3] [--workers 1] [--methods rmu npo ...]

First every variant (groups.py lists them) is trained with each of its settings on the lab's model
with seed 0, and fine-tuned on the validation task `next`, on which no result is reported. Of the
plain method the setting is kept that has the largest sum of ``forgotten`` along that fine-tuning
and utility before it. Of the others it is the one with the highest ``forgotten`` along the
fine-tuning among those whose ``forgotten`` and utility before it are at most .05 and .03 (.02 in
the groups `equal` and `directions`) below the plain method's; if there is none, the one nearest to
that, and its row says how far below. Then the kept settings, with new seeds for data and steering
vector, are fine-tuned on the six test tasks and relearn. The same command again does only what is
missing; the table is results/ilu_vs_baselines.json and .md, where groups without runs in DIR keep
their rows and commits; gains are over rows of the same group. `without sums` leaves out the task
that is the environment of all variants but a few. Attacked weights are kept, and the original model
is attacked alike: studies/angles, studies/recovery and studies/penalty read them.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from ilu.lab.tasks import VALIDATION
from ilu.recipes import lab
from ilu.runs.recipe import Recipe
from ilu.runs.run import Options, run
from ilu.runs.sweep.local import run_all
from ilu.runs.sweep.worker import Outcome
from ilu.training.fit import Optim
from studies.ilu_vs_baselines.choice import choice, chosen_path, test_path
from studies.ilu_vs_baselines.groups import RMU, VARIANTS
from studies.ilu_vs_baselines.perturbed import PerturbedTexts
from studies.ilu_vs_baselines.table import ORIGINAL, write_table
from studies.ilu_vs_baselines.variants import QUESTIONS

RESULTS = Path(__file__).parents[2] / "results" / "ilu_vs_baselines.json"
TUNE, RELEARN = 60, 30


def choosing(out: Path, group: str) -> dict[Path, Recipe]:
    """Every setting of every variant, fine-tuned on the validation task."""
    attacks = {VALIDATION.name: lab.finetune(VALIDATION.name, TUNE)}
    return {
        chosen_path(out, name, i): replace(variant.built(i, 0), attacks=attacks)
        for name, variant in VARIANTS[group].items()
        for i in range(len(variant.choices))
    }


def testing(out: Path, group: str, seeds: int) -> dict[Path, Recipe]:
    """The kept settings under the attacks of the table; seed 0 has been chosen on."""
    kept = {name: choice(out, group, name) for name in VARIANTS[group]}
    made = {
        (name, seed): VARIANTS[group][name].built(kept[name], seed)
        for seed in range(1, seeds + 1)
        for name in kept
    }
    made |= {(ORIGINAL, seed): original(seed) for seed in range(1, seeds + 1)}
    return {
        test_path(out, name, seed): replace(
            each, attacks=lab.attacks(TUNE, RELEARN, QUESTIONS, seed), keep_attacked=True
        )
        for (name, seed), each in made.items()
    }


def original(seed: int) -> Recipe:
    """Nothing is forgotten: where the task vectors of the others begin."""
    nothing = Optim(lr=1e-3, steps=0)
    made = RMU.built(0, seed)
    return replace(made, name=ORIGINAL, objective={}, data={}, optim=nothing)


def carry_out(jobs: Mapping[Path, Recipe], workers: int) -> Iterator[Outcome]:
    """Every run, in processes of their own where the recipe can be restored from its record.

    ``PerturbedTexts`` is not part of the package, so its runs are carried out in this process.
    """
    here = {path: recipe for path, recipe in jobs.items() if perturbed(recipe)}
    yield from run_all({p: r for p, r in jobs.items() if p not in here}, workers=workers)
    for path, recipe in here.items():
        run(recipe, path, Options(resume=True))
        yield Outcome(path, None)


def perturbed(recipe: Recipe) -> bool:
    """Whether data of the recipe is perturbed."""
    return any(isinstance(feed.source, PerturbedTexts) for feed in recipe.data.values())


def main() -> None:
    """Choose, then test; write the table after every run of the second half."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", type=Path, default=RESULTS)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--methods", nargs="+", default=["rmu"], choices=list(VARIANTS))
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    for group in wanted.methods:
        for ended in carry_out(choosing(wanted.out, group), wanted.workers):
            print(ended.path.name, ended.error or "done", flush=True)
        for ended in carry_out(testing(wanted.out, group, wanted.seeds), wanted.workers):
            print(ended.path.name, ended.error or "done", flush=True)
            write_table(wanted.out, wanted.methods, wanted.seeds, wanted.table)


if __name__ == "__main__":
    main()
