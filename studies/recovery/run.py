"""From how few documents does forgotten knowledge return, and how large are tasks' gradients?

    python -m studies.recovery.run DIR OUT [--seeds 3] [--workers 1] [--table PATH]

DIR is that of studies/ilu_vs_baselines, whose unlearned models are attacked again: relearning from
the four documents each of 1 to 20 of the forgotten entities, and training on as many stories about
nobody. The questions are about entities whose documents were not shown. Also the norm of the
gradient of the environment's loss (sums) and of the five other tasks', over all weights and over
those that RMU trains: the penalty drives it to zero. The same command again attacks only what has
not been attacked.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ilu.data.stream import Feed, open_stream
from ilu.evals.metrics.multiple_choice import Choice
from ilu.evals.score import mean
from ilu.lab.sources import Facts, TaskTrain
from ilu.lab.tasks import TASKS
from ilu.methods.retain.likelihood import NLL
from ilu.methods.robust.perturb import norm
from ilu.models.forward import ModelForward
from ilu.models.load import load_model
from ilu.models.weight_names import named_trained
from ilu.recipes import lab
from ilu.runs.recipe import Recipe
from ilu.runs.results.forget_metric import OTHERS
from ilu.runs.results.summary import forgotten_share
from ilu.runs.run_dir import RunDir
from ilu.runs.sweep.local import run_all
from ilu.system.atomic import write_json, write_text
from ilu.system.provenance import environment
from ilu.types import LM
from studies.ilu_vs_baselines.choice import test_path
from studies.ilu_vs_baselines.groups import RMU_TRAINS
from studies.ilu_vs_baselines.run import RELEARN, original
from studies.ilu_vs_baselines.variants import QUESTIONS

RESULTS = Path(__file__).parents[2] / "results" / "recovery.json"
VARIANTS = (
    "rmu", "rmu-control", "rmu-ilu", "rmu-ilu tensors", "rmu-ilu elementwise",
    "rmu-ilu elementwise, longer", "rmu-sam all weights", "rmu-sam-ilu", "rmu-sam-ilu all weights",
    "rmu-ahead", "rmu-tar all weights",
)  # fmt: skip
SHOWN = (1, 2, 5, 10, 20)
STAGES = (
    "after", *(f"relearn-{n}-end" for n in SHOWN), *(f"unrelated-{n}-end" for n in (1, 20)),
)  # fmt: skip
ENVIRONMENT = "sums"


def attacked(model: Path, seed: int) -> Recipe:
    """An unlearned model, asked about the same entities before and after everything."""
    relearnt = {f"relearn-{n}": lab.relearn(RELEARN, seed=seed, shown=n) for n in SHOWN}
    stories = {f"unrelated-{n}": lab.unrelated(RELEARN, seed, shown=n) for n in (1, 20)}
    attacks = {
        name: replace(attack, goals={}, only_end=True)
        for name, attack in {**relearnt, **stories}.items()
    }
    others = {OTHERS: Choice(Facts("agents", start=lab.SHOWN, count=QUESTIONS))}
    made = replace(original(seed), name="recovery", model=str(model))
    return replace(made, attacks=attacks, metrics=others)


def gradient_norms(lm: LM, task: str) -> dict[str, float]:
    """Of a task's loss on 200 examples, over all weights and over those that RMU trains."""
    batch = open_stream(Feed(TaskTrain(task), 200), lm.tokenizer, limit=None, seed=1, name="task")(
        0
    )
    forward = ModelForward(lm.model)
    loss = NLL()(forward, forward, batch).mean()
    named = named_trained(lm.model, "")
    grads = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    trained = [grads[name] for name in named_trained(lm.model, RMU_TRAINS)]
    return {"all": norm(list(grads.values())).item(), "trained": norm(trained).item()}


def numbers(run: RunDir) -> dict[str, float]:
    """One model: what is left of forgetting after each attack, and what the tasks weigh on it."""
    lm = load_model(run.read("recipe")["model"])
    sizes = {task.name: gradient_norms(lm, task.name) for task in TASKS}
    others = [size for task, size in sizes.items() if task != ENVIRONMENT]
    return {
        **{stage.removesuffix("-end"): forgotten_share(run, stage, OTHERS) for stage in STAGES},
        "gradient, environment": sizes[ENVIRONMENT]["all"],
        "gradient, environment, trained": sizes[ENVIRONMENT]["trained"],
        "gradient, other tasks": mean([size["all"] for size in others]),
        "gradient, other tasks, trained": mean([size["trained"] for size in others]),
    }


def place(out: Path, variant: str, seed: int) -> RunDir:
    """Run directory in which a model is attacked."""
    return RunDir(out / test_path(out, variant, seed).name)


def jobs(folder: Path, out: Path, seeds: int) -> dict[Path, Recipe]:
    """Every model that DIR has, all variants of a seed first."""
    every = [(variant, seed) for seed in range(1, seeds + 1) for variant in VARIANTS]
    return {
        place(out, variant, seed).path: attacked(test_path(folder, variant, seed) / "model", seed)
        for variant, seed in every
        if RunDir(test_path(folder, variant, seed)).has("done")
    }


def row(out: Path, variant: str, seeds: int) -> dict[str, Any] | None:
    """Means over the seeds whose attacks have all succeeded."""
    every = [place(out, variant, seed) for seed in range(1, seeds + 1)]
    runs = {i: run for i, run in enumerate(every) if run.has("done") and not run.failures()}
    if not runs:
        return None
    found = {i: numbers(run) for i, run in runs.items()}
    return {
        "method": variant,
        "seeds": len(found),
        "commits": sorted({run.read("environment")["commit"] for run in runs.values()}),
        **{key: mean([each[key] for each in found.values()]) for key in found[min(found)]},
    }


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows for readers."""
    keys = [key for key in rows[0] if key not in ("method", "seeds", "commits")] if rows else []
    lines = [f"| {r['method']} | {' | '.join(f'{r[key]:.3f}' for key in keys)} |" for r in rows]
    head = f"| method | {' | '.join(keys)} |"
    return "\n".join([head, f"|{'---|' * (len(keys) + 1)}", *lines]) + "\n"


def main() -> None:
    """Attack what has not been, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--table", type=Path, default=RESULTS)
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    planned = jobs(wanted.folder, wanted.out, wanted.seeds)
    for ended in run_all(planned, workers=wanted.workers):
        print(ended.path.name, ended.error or "done", flush=True)
    rows = [r for variant in VARIANTS if (r := row(wanted.out, variant, wanted.seeds))]
    write_json(wanted.table, {
        "command": "python -m studies.recovery.run DIR OUT",
        "environment": {**environment(), "argv": None},
        "rows": rows,
    })  # fmt: skip
    write_text(wanted.table.with_suffix(".md"), to_markdown(rows))


if __name__ == "__main__":
    main()
