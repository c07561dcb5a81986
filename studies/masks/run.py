"""Do sparse masks help, and does the score matter? WAGLE, random, magnitude and SNIP.

    python -m studies.masks.run DIR [--seeds 3] [--workers 1] [--table results/masks.json]
        [--methods graddiff npo ... rmu-ilu] [--fractions 0.05 0.5 0.95 1]

GradDiff, NPO, PO and RMU on the lab, each alone and with the invariance penalty (-ilu), with a mask
of every score at several fractions and without one. Masks are made once from the original model:
the fraction is of the weights that the method trains, PO's forget gradient is that of its refusals.
Random masks differ from seed to seed. ``still_forgotten`` is over two fine-tunings of the lab, one
whose task was solved before (topics) and one whose was not (owner), of 30 steps; 100 questions of
each kind. Steps are the lab's own: ``forgotten`` is not matched. The same command again does only
what is missing; rows of the table that DIR has no runs of are kept with their commit.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ilu.data.counterparts import Refused
from ilu.evals.score import mean, mean_and_error
from ilu.lab.sources import Documents
from ilu.methods.forget.idk import Refusal
from ilu.methods.forget.rmu import steered_weights
from ilu.methods.masks.make import Scoring
from ilu.methods.masks.scores import Attribution, Magnitude, Random, Snip
from ilu.methods.masks.wagle import Wagle
from ilu.methods.retain.likelihood import NLL
from ilu.models.load import load_model
from ilu.models.named import LAB
from ilu.recipes import lab
from ilu.recipes.build import build
from ilu.runs.mask_stage import make_masks
from ilu.runs.recipe import Recipe
from ilu.runs.results.summary import forgotten_share
from ilu.runs.run_dir import RunDir
from ilu.runs.sweep.local import run_all
from ilu.system.atomic import write_json
from ilu.system.provenance import environment
from ilu.system.scores import STAGES

TABLE = Path(__file__).parents[2] / "results" / "masks.json"
METHODS = tuple(m + end for end in ("", "-ilu") for m in ("graddiff", "npo", "po", "rmu"))
SCORES: dict[str, Attribution] = {"wagle": Wagle(), "snip": Snip(), "magnitude": Magnitude()}
FRACTIONS = (0.05, 0.5, 0.95)
ALL = 1.0
"""Without a mask."""
TARGETS = {"po": "refusal", "rmu": "rmu"}
"""Whose masks a method takes, where they are not those of all weights."""
TASKS = ("topics", "owner")
QUESTIONS = 100
KEYS = ("method", "score", "fraction")


def make_all(folder: Path, seeds: int) -> None:
    """Masks of every score for what the methods train, in ``folder``."""
    lm = load_model(LAB)
    forget, retain = (Documents(who)(lm.tokenizer) for who in ("agents", "people"))
    refused = Refused(Documents("agents"))(lm.tokenizer)
    scores = {**SCORES, **{f"random{seed}": Random(seed) for seed in range(seeds)}}
    for target in ("all", "refusal", "rmu"):
        for name, score in scores.items():
            paths = {f: mask_path(folder, target, name, f) for f in FRACTIONS}
            if all(path.exists() for path in paths.values()):
                continue
            scoring = Scoring(
                score=score,
                forget_loss=Refusal() if target == "refusal" else NLL(),
                retain_loss=NLL(),
                batch_size=16,
                parameters=steered_weights(3) if target == "rmu" else "",
            )
            data = {"forget": refused if target == "refusal" else forget, "retain": retain}
            make_masks(
                scoring, list(paths.items()), "model", lm, data, lambda name, done, total: None
            )


def mask_path(folder: Path, target: str, score: str, fraction: float) -> Path:
    """Where a mask lies."""
    return folder / f"{target}-{score}-{fraction}.safetensors"


def jobs(
    out: Path, seeds: int, methods: Sequence[str], fractions: Sequence[float]
) -> dict[Path, Recipe]:
    """Every run, the larger fractions first, because the smallest moves little."""
    found: dict[Path, Recipe] = {}
    for fraction in sorted(fractions, reverse=True):
        for seed in range(seeds):
            for method in methods:
                target = TARGETS.get(method.removesuffix("-ilu"), "all")
                if fraction == ALL:
                    found[out / f"{method}_none_1_seed{seed}"] = recipe(method, seed)
                    continue
                for score in (*SCORES, "random"):
                    name = f"{score}{seed if score == 'random' else ''}"
                    mask = mask_path(out / "masks", target, name, fraction)
                    path = out / f"{method}_{score}_{fraction}_seed{seed}"
                    found[path] = recipe(method, seed, str(mask))
    return found


def recipe(name: str, seed: int, mask: str | None = None) -> Recipe:
    """One run."""
    settings: dict[str, Any] = {"model": LAB, "seed": seed, "mask": mask}
    if name.endswith("-ilu"):
        settings["environment_batch_size"] = 16
    attacks = {task: lab.finetune(task, 30, seed) for task in TASKS}
    return replace(build(name, settings), metrics=lab.metrics(QUESTIONS), attacks=attacks)


def row(group: list[RunDir]) -> dict[str, Any]:
    """Means over the seeds of one method, score and fraction."""
    method, score, fraction, _ = group[0].path.name.split("_")
    values = [numbers(run) for run in group]
    means = {k: mean_and_error([v[k] for v in values]) for k in values[0]}
    return {
        "method": method,
        "score": score,
        "fraction": float(fraction),
        "seeds": len(group),
        "commit": group[0].read("environment")["commit"],
        **means,
    }


def numbers(run: RunDir) -> Mapping[str, float]:
    """What is reported of one run."""
    along = [forgotten_share(run, f"{task}-{stage}") for task in TASKS for stage in STAGES]
    return {
        "forgotten": forgotten_share(run, "after"),
        "utility": run.scores("after")["utility"].value,
        "still_forgotten": mean(along),
        "task_accuracy": mean([run.scores(f"{t}-end")["task_accuracy"].value for t in TASKS]),
        "seconds": run.read("cost")["seconds"],
    }


def write_table(paths: list[Path], table: Path) -> None:
    """Write what the finished runs say, beside the rows of runs that are not there."""
    groups: dict[str, list[RunDir]] = {}
    for path in paths:
        if (path / "done.json").is_file():
            groups.setdefault(path.name.rpartition("_")[0], []).append(RunDir(path))
    old = json.loads(table.read_text())["rows"] if table.exists() else []
    rows = {tuple(r[key] for key in KEYS): r for r in (*old, *map(row, groups.values()))}
    order = ("none", *SCORES, "random")
    found = sorted(
        rows.values(),
        key=lambda r: (METHODS.index(r["method"]), -r["fraction"], order.index(r["score"])),
    )
    write_json(table, {"command": "python -m studies.masks.run DIR",
                       "environment": {**environment(), "argv": None}, "rows": found})  # fmt: skip


def main() -> None:
    """Make the masks, carry out what is missing, write the table after every run."""
    parser = argparse.ArgumentParser(description="Masks of every score on the lab.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--fractions", nargs="+", type=float, default=(*FRACTIONS, ALL))
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    make_all(wanted.out / "masks", wanted.seeds)
    planned = jobs(wanted.out, wanted.seeds, wanted.methods, wanted.fractions)
    old = {path for path in planned if (path / "done.json").is_file()}
    for outcome in run_all(planned, workers=wanted.workers):
        print(outcome.path.name, outcome.error or "done", flush=True)
        if outcome.path not in old:
            write_table(list(planned), wanted.table)
    write_table(list(planned), wanted.table)


if __name__ == "__main__":
    main()
