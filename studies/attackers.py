"""Other attackers: plain descent in place of AdamW, and relearning from few documents.

    python studies/attackers.py DIR OUT [--seeds 3] [--workers 1] [--table results/attackers.json]

DIR is that of studies/ilu_vs_baselines.py, whose unlearned models are attacked again. The penalty
makes the gradient of an environment small, but AdamW divides a gradient by its size: does it help
where the attacker takes steps as large as the gradient (descent with momentum .9, not clipped)? Its
rate is the one of ``RATES`` with the least loss on the validation task, on the original model.
Relearning is from the documents of 1 to 20 of the forgotten entities, asked about the others; a
model is recovered where forget quality is half of what it was.
The same command again does only what is missing.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from ilu_vs_baselines import (
    QUESTIONS,
    RELEARN,
    RMU_TRAINS,
    TUNE,
    difference,
    low,
    original,
    test_path,
)

from ilu.attacks.finetune import FineTune
from ilu.data import Feed, open_stream
from ilu.environment import environment
from ilu.evals.likelihood import AnswerNLL
from ilu.files import write_json, write_text
from ilu.forward import ModelForward, named_trained
from ilu.lab.sources import TaskTrain
from ilu.lab.tasks import TASKS, VALIDATION
from ilu.models import load_model
from ilu.pool import run_all
from ilu.recipe import Recipe
from ilu.recipes import lab
from ilu.retain.likelihood import NLL
from ilu.robust.rules import norm
from ilu.rundir import RunDir
from ilu.summary import (
    OTHERS,
    downstream,
    forget_quality,
    mean,
    model_summary,
    task_summary,
)
from ilu.types import LM, Attack

RESULTS = Path(__file__).parent.parent / "results" / "attackers.json"
WAYS = (
    "rmu", "rmu-control", "rmu-ilu", "rmu-ilu tensors", "rmu-ilu elementwise",
    "rmu-ilu elementwise, longer", "rmu-sam all weights", "rmu-sam-ilu", "rmu-sam-ilu all weights",
    "rmu-ahead", "rmu-tar all weights",
)  # fmt: skip
RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
SHOWN = (1, 2, 5, 10, 20)


def descent(task: str, rate: float, seed: int) -> FineTune:
    """Fine-tuning on a task by an attacker with another optimiser."""
    found = lab.finetune(task, TUNE, seed)
    return replace(found, optim=replace(found.optim, optimizer="sgd", lr=rate, clip=None))


def trying(out: Path) -> dict[float, Path]:
    """Where the original model is when it has learned the validation task at each rate."""
    return {rate: out / "rates" / f"{rate:g}" for rate in RATES}


def tried(rate: float) -> Recipe:
    """The original model under one rate."""
    attack = descent(VALIDATION.name, rate, 0)
    loss = {"task_nll": AnswerNLL(TaskTrain(VALIDATION.name), 200)}
    return replace(original(0), attacks={VALIDATION.name: replace(attack, goals=loss)})


def learnt(path: Path) -> float:
    """Loss at the end, infinite where training failed."""
    run, stage = RunDir(path), f"{VALIDATION.name}-end"
    return run.scores(stage)["task_nll"].value if run.has(f"scores/{stage}") else float("inf")


def attacks(rate: float, seed: int) -> dict[str, Attack]:
    """Every task by descent, and relearning from few to many."""
    few = {
        f"relearn-{n}": replace(lab.relearn(RELEARN, QUESTIONS, seed, shown=n), only_end=True)
        for n in SHOWN
    }
    return {**{task.name: descent(task.name, rate, seed) for task in TASKS}, **few}


def attacked(model: Path, rate: float, seed: int) -> Recipe:
    """An unlearned model under these attackers."""
    made = replace(original(seed), name="attackers", model=str(model))
    return replace(made, attacks=attacks(rate, seed))


def gradient_norm(lm: LM, task: str, pattern: str) -> float:
    """Of a task's loss on 200 examples, over the weights whose names match."""
    batch = open_stream(Feed(TaskTrain(task), 200), lm, seed=1, name="task")(0)
    forward = ModelForward(lm.model)
    loss = NLL()(forward, forward, batch).mean()
    grads = torch.autograd.grad(loss, list(named_trained(lm.model, pattern).values()))
    return norm(grads).item()


def numbers(found: RunDir, under_adamw: RunDir) -> dict[str, float]:
    """One model: what is left of forgetting under each attacker, and what the tasks weigh on it."""
    lm = load_model(found.read("recipe")["model"])
    sums = {name: task_summary(found, name) for name in downstream(found)}
    adam = model_summary(under_adamw)
    return {
        "fq": adam["forget_quality"],
        "ra_adamw": adam["robust_accuracy"],
        "fa_adamw": adam["finetune_accuracy"],
        "ra_sgd": mean([q for each in sums.values() for q in each["forget_quality"]]),
        "fa_sgd": mean([each["finetune_accuracy"] for each in sums.values()]),
        **{f"fq_relearn_{n}": forget_quality(found, f"relearn-{n}-end", OTHERS) for n in SHOWN},
        "gradient_sums": gradient_norm(lm, "sums", ""),
        "gradient_sums_trained": gradient_norm(lm, "sums", RMU_TRAINS),
        "gradient_others": mean([gradient_norm(lm, t, "") for t in sums if t != "sums"]),
        "gradient_others_trained": mean(
            [gradient_norm(lm, t, RMU_TRAINS) for t in sums if t != "sums"]
        ),
    }


def place(out: Path, way: str, seed: int) -> RunDir:
    """Where a model is attacked."""
    return RunDir(out / test_path(Path("attacked"), way, seed).name)


def jobs(folder: Path, out: Path, rate: float, seeds: int) -> dict[Path, Recipe]:
    """Every model of the study that DIR has."""
    every = {(w, s): test_path(folder, w, s) for s in range(1, seeds + 1) for w in WAYS}
    return {
        place(out, way, seed).path: attacked(path / "model", rate, seed)
        for (way, seed), path in every.items()
        if RunDir(path).has("done")
    }


def rows(folder: Path, out: Path, seeds: int) -> list[dict[str, Any]]:
    """A row for each way; gains are over RMU and over the control, seed by seed."""
    found = {
        way: {
            seed: numbers(run, RunDir(test_path(folder, way, seed)))
            for seed in range(1, seeds + 1)
            if (run := place(out, way, seed)).has("done")
        }
        for way in WAYS
    }
    return [
        {"method": way, "seeds": len(own), **averages(own), **gains(own, found)}
        for way, own in found.items()
        if own
    ]


def averages(own: Mapping[int, Mapping[str, float]]) -> dict[str, Any]:
    """Means over the seeds, and from how many entities forgetting is half undone."""
    first = next(iter(own.values()))
    means = {key: mean([each[key] for each in own.values()]) for key in first}
    enough = [n for n in SHOWN if means[f"fq_relearn_{n}"] < means["fq"] / 2]
    return {**means, "recovered_from": min(enough, default=None)}


def gains(
    own: Mapping[int, Mapping[str, float]], found: Mapping[str, Mapping[int, Mapping[str, float]]]
) -> dict[str, Any]:
    """Robust accuracy over another way's, with the lower end of its 95 % interval."""
    made: dict[str, Any] = {}
    for key in ("ra_adamw", "ra_sgd"):
        for other in ("rmu", "rmu-control"):
            a, b = ({s: each[key] for s, each in way.items()} for way in (own, found[other]))
            over = difference(a, b)
            made[f"{key}_over_{other}"] = [mean(over), low(over)] if a != b else None
    return made


COLUMNS = (
    "fq", "ra_adamw", "fa_adamw", "ra_sgd", "fa_sgd", *(f"fq_relearn_{n}" for n in SHOWN),
    "gradient_sums", "gradient_sums_trained", "gradient_others", "gradient_others_trained",
)  # fmt: skip


def to_markdown(found: Sequence[Mapping[str, Any]]) -> str:
    """The rows for readers."""
    head = f"| method | {' | '.join(COLUMNS)} | recovered from |\n|{'---|' * (len(COLUMNS) + 2)}"
    lines = [
        f"| {r['method']} | {' | '.join(f'{r[key]:.3f}' for key in COLUMNS)} | "
        f"{r['recovered_from'] or 'more'} |"
        for r in found
    ]
    return "\n".join([head, *lines]) + "\n"


def main() -> None:
    """Choose the rate, attack what has not been, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--table", type=Path, default=RESULTS)
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    places = trying(wanted.out)
    for ended in run_all({places[r]: tried(r) for r in RATES}, workers=wanted.workers):
        print(ended.path.name, ended.error or "done", flush=True)
    losses = {rate: learnt(path) for rate, path in places.items()}
    rate = min(losses, key=lambda r: losses[r])
    planned = jobs(wanted.folder, wanted.out, rate, wanted.seeds)
    for ended in run_all(planned, workers=wanted.workers):
        print(ended.path.name, ended.error or "done", flush=True)
    found = rows(wanted.folder, wanted.out, wanted.seeds)
    write_json(wanted.table, {
        "command": "python studies/attackers.py DIR OUT",
        "environment": {**environment(), "argv": None},
        "validation_loss_by_rate": {f"{r:g}": loss for r, loss in losses.items()},
        "rate": rate,
        "rows": found,
    })  # fmt: skip
    write_text(wanted.table.with_suffix(".md"), to_markdown(found))


if __name__ == "__main__":
    main()
