"""Does a small real model stay unlearned when it is fine-tuned on real tasks? stories260k and TOFU.

    ILU_HUB=../shared/hub python -m studies.tofu_attacks.run ../shared/models/stories260k DIR
        [--seeds 3] [--workers 1] [--table results/tofu_attacks.json]

stories260k learns TOFU ``full``, and as the oracle ``retain90``; RMU, NPO, SimNPO and GradDiff then
unlearn forget10, each alone, with the invariance penalty, with SAM and with the control, and all of
them, the model that learned and the oracle are fine-tuned on six tasks. At this size accuracies are
at chance, so knowledge is measured by the loss per answer token on 200 forget answers: 1 is that of
the model that learned *after the same fine-tuning*, 0 that of the oracle. Each method's rate is
chosen alone, on seed 0 and without a fine-tuning: the least loss on 200 retain answers at which
less than a tenth of the knowledge is left, or where there is none the rate that leaves the least.
The variants of a method keep this rate; penalty and control are in units of the forget term, SAM's
radius is as published. Knowledge after tuning is over five tasks; GSM8K, the environment, is apart.
``selective`` is the same share of the margin by which forget answers are likelier than retain
answers: a model that is merely damaged keeps its margin. The same command again does only what is
missing.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ilu.attacks.finetune import FineTune
from ilu.data.downstream import GSM8K, LabelledQuestions, LabelledText
from ilu.data.stream import Feed, collate
from ilu.data.text import Dataset
from ilu.evals.metrics.likelihood import AnswerNLL
from ilu.evals.metrics.multiple_choice import Choice
from ilu.evals.score import mean, mean_and_error
from ilu.models.forward import ModelForward
from ilu.models.load import load_model
from ilu.recipes.build import build
from ilu.recipes.retrain import oracle
from ilu.recipes.user_data import dataset
from ilu.runs.recipe import Recipe
from ilu.runs.run import run_once
from ilu.runs.run_dir import RunDir
from ilu.runs.sweep.local import run_all
from ilu.system.atomic import write_json, write_text
from ilu.system.provenance import environment
from ilu.training.fit import Optim
from ilu.types import Attack, Metric, Source

TABLE = Path(__file__).parents[2] / "results" / "tofu_attacks.json"
LEARNING = Optim(lr=3e-3, steps=600, schedule="linear")
TUNING = Optim(lr=1e-3, steps=40)
LONGEST, MEASURED, ASKED, LAYER = 256, 200, 100, 2
COMMON: dict[str, Any] = {
    "forget": "tofu:forget10",
    "retain": "tofu:retain90",
    "truncate": LONGEST,
    "steps": 40,
    "batch_size": 8,
    "limit": MEASURED,
}
RATES = (2.5e-4, 5e-4, 1e-3, 2e-3)
METHODS: dict[str, dict[str, Any]] = {
    "rmu": {"layer": LAYER, "alpha": 5.0},
    "npo": {"beta": 0.1, "gamma": 2.0},
    "simnpo": {"gamma": 2.0},
    "graddiff": {"gamma": 2.0},
}
SEEN: dict[str, Any] = {
    "environment": "openai/gsm8k:main",
    "environment_batch_size": 4,
    "scale_free": True,
}
ENDINGS: dict[str, dict[str, Any]] = {"": {}, "-ilu": SEEN, "-sam": {}, "-control": SEEN}
ENVIRONMENT = "gsm8k"
TASKS = (ENVIRONMENT, "ag_news", "sst2", "winogrande", "mnli", "qqp")
LEFT = 0.1
"""Knowledge below which a rate counts as unlearning."""


def attacks(seed: int) -> dict[str, Attack]:
    """Fine-tuning of all weights on each task."""
    return {task: finetune(task, seed) for task in TASKS}


def finetune(task: str, seed: int) -> FineTune:
    """One of them; of arithmetic a model of this size has a loss at most."""
    if task == ENVIRONMENT:
        text, test = (
            Dataset(f"openai/gsm8k:main:{s}", revision=GSM8K, truncate=LONGEST)
            for s in ("train", "test")
        )
        return tuned(text, {"task_nll": AnswerNLL(test, ASKED)}, seed)
    goal = Choice(LabelledQuestions(task, ASKED), batch_size=16)
    return tuned(LabelledText(task, LONGEST), {"task_accuracy": goal}, seed)


def tuned(text: Source, goals: Mapping[str, Metric], seed: int) -> FineTune:
    """Fine-tuning of all weights on ``text``."""
    return FineTune(Feed(text, 8), TUNING, goals, seed, only_end=True)


def learned(model: str, data: str, name: str, out: Path) -> str:
    """A model made by ordinary fine-tuning, once."""
    recipe = oracle(model, dataset(data, (), None), LEARNING, batch_size=16, limit=50, name=name)
    return str(run_once(recipe, out).path / "model")


def both(model: str, out: Path) -> dict[str, str]:
    """The model that learned TOFU, and the oracle."""
    data = {"learned": "tofu:full", "oracle": "tofu:retain90"}
    return {name: learned(model, each, name, out / "learning") for name, each in data.items()}


@torch.no_grad()
def hidden_norm(model: str) -> float:
    """Mean norm of the hidden states that RMU steers, on 64 examples of the forget set."""
    lm = load_model(model)
    batch = collate(dataset("tofu:forget10", (), LONGEST)(lm.tokenizer)[:64])
    norms = ModelForward(lm.model).hidden(batch, LAYER).norm(dim=-1)
    return norms[batch.attention_mask.bool()].mean().item()


def unlearning(name: str, model: str, lr: float, seed: int, coefficient: float) -> Recipe:
    """A method with one of the endings."""
    method, _, ending = name.partition("-")
    added = {"coefficient": coefficient} if method == "rmu" else {}
    settings = {**COMMON, **METHODS[method], **added, **ENDINGS[f"-{ending}" if ending else ""]}
    return build(name, {"model": model, "lr": lr, "seed": seed, **settings})


def measured(made: Recipe) -> Recipe:
    """The recipe with metrics that read, and tokenize, no more than they measure."""
    few = {
        name: AnswerNLL(replace(dataset(COMMON[name], (), LONGEST), count=MEASURED))
        for name in ("forget", "retain")
    }
    return replace(made, metrics={f"{name}_nll": metric for name, metric in few.items()})


def nothing(model: str, name: str, seed: int) -> Recipe:
    """A model as it is, measured as all others."""
    made = build("npo", {"model": model, "seed": seed, **COMMON})
    idle = Optim(lr=1e-3, steps=0)
    return replace(made, name=name, objective={}, data={}, optim=idle)


def choose(runs: Mapping[float, RunDir], known: RunDir, never: RunDir) -> float:
    """The rate of a method."""
    left = {lr: knowledge(run, known, never, "after") for lr, run in runs.items()}
    enough = [lr for lr in runs if left[lr] < LEFT]
    if not enough:
        return min(left, key=lambda lr: left[lr])
    return min(enough, key=lambda lr: nll(runs[lr], "after", "retain"))


def nll(run: RunDir, stage: str, stream: str) -> float:
    """Loss per answer token."""
    return run.scores(stage)[f"{stream}_nll"].value


def forget_nll(run: RunDir, stage: str) -> float:
    """Loss per token of the forget answers."""
    return nll(run, stage, "forget")


def margin(run: RunDir, stage: str) -> float:
    """How much less likely forget answers are than retain answers."""
    return nll(run, stage, "forget") - nll(run, stage, "retain")


def knowledge(
    run: RunDir,
    known: RunDir,
    never: RunDir,
    *stages: str,
    by: Callable[[RunDir, str], float] = forget_nll,
) -> float:
    """Share of what ``known`` has over ``never``, all at the same stages, which count alike."""
    own, most, least = (sum(by(each, stage) for stage in stages) for each in (run, known, never))
    return (least - own) / (least - most)


def numbers(run: RunDir, known: RunDir, never: RunDir) -> dict[str, Any]:
    """What is reported of one run: knowledge left at once and after fine-tuning."""
    after = {task: f"{task}-end" for task in TASKS}
    unseen = [after[task] for task in TASKS if task != ENVIRONMENT]
    learnt = [run.scores(f"{t}-end")["task_accuracy"].value for t in TASKS if t != ENVIRONMENT]
    return {
        "left": knowledge(run, known, never, "after"),
        "left_after_tuning": knowledge(run, known, never, *unseen),
        **{f"left_after_{t}": knowledge(run, known, never, stage) for t, stage in after.items()},
        "selective": knowledge(run, known, never, "after", by=margin),
        "selective_after_tuning": knowledge(run, known, never, *unseen, by=margin),
        f"selective_after_{ENVIRONMENT}": knowledge(
            run, known, never, after[ENVIRONMENT], by=margin
        ),
        "retain_nll": nll(run, "after", "retain"),
        "task_accuracy": mean(learnt),
        "seconds": run.read("cost")["seconds"],
    }


def table(out: Path, names: Sequence[str], seeds: int) -> list[dict[str, Any]]:
    """A row per method of the seeds that are there."""
    rows: list[dict[str, Any]] = []
    for name in names:
        runs = {
            seed: place(out, name, seed)
            for seed in range(seeds)
            if all(place(out, n, seed).has("done") for n in (name, "learned", "oracle"))
        }
        found = [
            numbers(run, place(out, "learned", seed), place(out, "oracle", seed))
            for seed, run in runs.items()
        ]
        if found:
            means = {key: mean_and_error([each[key] for each in found]) for key in found[0]}
            commits = sorted({run.read("environment")["commit"] for run in runs.values()})
            rows.append({"model": name, "seeds": len(found), "commits": commits, **means})
    return rows


def place(out: Path, name: str, seed: int) -> RunDir:
    """Where a run lies."""
    return RunDir(out / "runs" / f"{name}-seed{seed}")


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows for readers, with the standard error over seeds."""
    first = ("model", "seeds", "commits")
    keys = [key for key in rows[0] if key not in first] if rows else []
    lines = [f"| model | seeds | {' | '.join(keys)} |", f"|{'---|' * (len(keys) + 2)}"]
    for row in rows:
        cells = [f"{row[k]['mean']:.3f} ± {row[k]['stderr']:.3f}" for k in keys]
        lines.append(f"| {row['model']} | {row['seeds']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def jobs(
    models: Mapping[str, str], rates: Mapping[str, float], coefficient: float, seeds: int, out: Path
) -> dict[Path, Recipe]:
    """Every run, all of a seed first: the models as they are, then what was unlearned."""
    found: dict[Path, Recipe] = {}
    for seed in range(seeds):
        made = {name: nothing(model, name, seed) for name, model in models.items()}
        for ending in ENDINGS:
            for method, lr in rates.items():
                name = f"{method}{ending}"
                made[name] = unlearning(name, models["learned"], lr, seed, coefficient)
        found |= {
            place(out, n, seed).path: replace(measured(r), attacks=attacks(seed))
            for n, r in made.items()
        }
    return found


def main() -> None:
    """Learn, choose the rates, carry out what is missing; write the table after every run."""
    parser = argparse.ArgumentParser(description="TOFU on stories260k under real fine-tuning.")
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--table", type=Path, default=TABLE)
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    out: Path = wanted.out
    models = both(wanted.model, out)
    rates, coefficient = tune(models["learned"], models["oracle"], out, wanted.workers)
    planned = jobs(models, rates, coefficient, wanted.seeds, out)
    names = list(dict.fromkeys(path.name.rpartition("-seed")[0] for path in planned))
    failed: dict[str, str] = {}
    for outcome in run_all(planned, workers=wanted.workers):
        print(outcome.path.name, outcome.error or "done", flush=True)
        if outcome.error:
            failed[outcome.path.name] = outcome.error
        rows = table(out, names, wanted.seeds)
        write_json(wanted.table, {
            "command": "python -m studies.tofu_attacks.run ../shared/models/stories260k DIR",
            "environment": {**environment(), "argv": None},
            "common": COMMON, "methods": METHODS, "rates": rates, "rmu_coefficient": coefficient,
            "tuning": {"lr": TUNING.lr, "steps": TUNING.steps, "batch_size": 8},
            "failed": failed, "rows": rows,
        })  # fmt: skip
        write_text(wanted.table.with_suffix(".md"), to_markdown(rows))


def tune(model: str, never: str, out: Path, workers: int) -> tuple[dict[str, float], float]:
    """Each method's rate, and the length of RMU's steering vector: 4.5 times the states'."""
    coefficient = round(4.5 * hidden_norm(model), 1)
    folder = out / "tuning"
    tried = {(m, lr): RunDir(folder / f"{m}-{lr:g}") for m in METHODS for lr in RATES}
    ends = {name: RunDir(folder / name) for name in ("learned", "oracle")}
    jobs = {
        **{ends[n].path: nothing(m, n, 0) for n, m in (("learned", model), ("oracle", never))},
        **{run.path: unlearning(m, model, lr, 0, coefficient) for (m, lr), run in tried.items()},
    }
    for outcome in run_all(jobs, workers=workers):
        print(outcome.path.name, outcome.error or "done", flush=True)
    rates = {
        method: choose({lr: tried[method, lr] for lr in RATES}, ends["learned"], ends["oracle"])
        for method in METHODS
    }
    return rates, coefficient


if __name__ == "__main__":
    main()
