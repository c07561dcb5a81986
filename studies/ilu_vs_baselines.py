"""Does forgetting survive unrelated fine-tuning, and what of ILU helps? Against tuned baselines.

    python studies/ilu_vs_baselines.py DIR [--seeds 3] [--workers 1] [--methods rmu npo ...]

First every way (studies/groups.py has them) is tried with each of its settings on the lab's
model with seed 0, and fine-tuned on the validation task `next`, which no result is reported on. Of
the plain method the setting is kept that has most forget quality along that fine-tuning and utility
before it, added up. Of the others it is the one with the highest forget quality along the
fine-tuning among those whose forget quality and utility before it are at most .05 and .03 (.02 in
the groups `equal` and `directions`) below the plain method's; if there is none, the one nearest to
that, and its row says how far below. Then the kept settings, with new seeds for data and steering
vector, are fine-tuned on the six test tasks and relearn. The same command again does only what is
missing; the table is results/ilu_vs_baselines.json and .md, where groups that DIR has no runs of
are kept with the commits of theirs; gains are over rows of the same group. `but sums` leaves out
the task that is the environment of all ways but a few. Attacked weights are kept, and the original
model is attacked alike: studies/angles.py and studies/recovery.py read them.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from baselines_table import ORIGINAL, write_table
from choosing import choice, chosen_path, test_path
from groups import RMU, WAYS
from ways import QUESTIONS

from ilu.lab.tasks import VALIDATION
from ilu.recipes import lab
from ilu.runs.recipe import Recipe
from ilu.runs.sweep.local import run_all
from ilu.training.fit import Optim

RESULTS = Path(__file__).parent.parent / "results" / "ilu_vs_baselines.json"
TUNE, RELEARN = 60, 30


def choosing(out: Path, group: str) -> dict[Path, Recipe]:
    """Every setting of every way, fine-tuned on the validation task."""
    attacks = {VALIDATION.name: lab.finetune(VALIDATION.name, TUNE)}
    return {
        chosen_path(out, name, i): replace(way.built(i, 0), attacks=attacks)
        for name, way in WAYS[group].items()
        for i in range(len(way.choices))
    }


def testing(out: Path, group: str, seeds: int) -> dict[Path, Recipe]:
    """The kept settings under the attacks of the table; seed 0 has been chosen on."""
    kept = {name: choice(out, group, name) for name in WAYS[group]}
    made = {
        (name, seed): WAYS[group][name].built(kept[name], seed)
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


def main() -> None:
    """Choose, then test; write the table after every run of the second half."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", type=Path, default=RESULTS)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--methods", nargs="+", default=["rmu"], choices=list(WAYS))
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    for group in wanted.methods:
        for ended in run_all(choosing(wanted.out, group), workers=wanted.workers):
            print(ended.path.name, ended.error or "done", flush=True)
        for ended in run_all(testing(wanted.out, group, wanted.seeds), workers=wanted.workers):
            print(ended.path.name, ended.error or "done", flush=True)
            write_table(wanted.out, wanted.methods, wanted.seeds, wanted.table)


if __name__ == "__main__":
    main()
