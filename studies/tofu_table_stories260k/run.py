"""What does TOFU's table say of a model of 260 thousand weights? Learn, unlearn forget10, measure.

    ILU_HUB=../shared/hub python -m studies.tofu_table_stories260k.run
        ../shared/models/stories260k DIR

About 20 minutes of one core; writes results/tofu_table_stories260k.json and .md. Runs that are
finished in DIR are not repeated. stories260k learns TOFU ``full``, and as the oracle ``retain90``
likewise. NPO, SimNPO, GradDiff and RMU, each alone and with ILU, then have the same number of
steps. Every setting was fixed before any of these models was measured: lr, batch and gamma are
those of an earlier run of npo (docs/log/2026-11.md), RMU's steering vector is 4.5 times as long as
the hidden states are on forget10 before unlearning, as on the lab; the rest is as published. ILU's
penalty is measured in units of the forget term (strength 1, environment GSM8K).
"""

import argparse
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ilu.data.stream import collate
from ilu.evals.cached_suite import Evaluation, evaluate, with_reference
from ilu.models.forward import ModelForward
from ilu.models.load import load_model
from ilu.recipes.build import build
from ilu.recipes.retrain import oracle
from ilu.recipes.suite import suite_of
from ilu.recipes.suite_request import SuiteRequest
from ilu.recipes.user_data import dataset
from ilu.runs.run import run_once
from ilu.runs.run_dir import RunDir, without_items
from ilu.system.atomic import write_json, write_text
from ilu.system.provenance import environment
from ilu.training.fit import Optim

COMMAND = "python -m studies.tofu_table_stories260k.run ../shared/models/stories260k DIR"
RESULTS = Path(__file__).parents[2] / "results"
LIMIT = 100
LEARNING = Optim(lr=3e-3, steps=600, schedule="linear")
COMMON: dict[str, Any] = {
    "forget": "tofu:forget10",
    "retain": "tofu:retain90",
    "truncate": 512,
    "steps": 40,
    "lr": 5e-4,
    "batch_size": 8,
    "limit": 50,
}
LAYER = 2
METHODS: dict[str, dict[str, Any]] = {
    "npo": {"beta": 0.1, "gamma": 2.0},
    "simnpo": {"gamma": 2.0},
    "graddiff": {"gamma": 2.0},
    "rmu": {"layer": LAYER, "alpha": 5.0, "lr": 1e-3},
}
ILU: dict[str, Any] = {
    "environment": "openai/gsm8k:main",
    "environment_batch_size": 4,
    "strength": 1.0,
    "scale_free": True,
}


def learn(model: str, data: str, name: str, out: Path) -> RunDir:
    """Ordinary fine-tuning, once."""
    source = dataset(data, (), None)
    return run_once(oracle(model, source, LEARNING, batch_size=16, limit=50, name=name), out)


@torch.no_grad()
def hidden_norm(model: str) -> float:
    """Mean norm of the hidden states that RMU steers, on 64 examples of the forget set."""
    lm = load_model(model)
    examples = dataset("tofu:forget10", (), None)(lm.tokenizer)[:64]
    batch = collate(examples)
    norms = ModelForward(lm.model).hidden(batch, LAYER).norm(dim=-1)
    return norms[batch.attention_mask.bool()].mean().item()


def unlearn(name: str, settings: dict[str, Any], model: str, out: Path) -> RunDir:
    """One recipe, once."""
    added = ILU if name.endswith("-ilu") else {}
    return run_once(build(name, {"model": model, **COMMON, **settings, **added}), out)


def rows(found: dict[str, Evaluation]) -> str:
    """The table in Markdown: a row per metric."""
    metrics = dict.fromkeys(m for each in found.values() for m in each.scores)
    lines = [f"| metric | {' | '.join(found)} |", f"|{'---|' * (len(found) + 1)}"]
    for metric in metrics:
        scores = [each.scores.get(metric) for each in found.values()]
        cells = ["-" if s is None else f"{s.value:.3g}" for s in scores]
        lines.append(f"| {metric} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train, unlearn, measure, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    wanted = parser.parse_args()
    carry_out(wanted.model, wanted.out)


def carry_out(model: str, out: Path) -> None:
    """The whole study."""
    torch.set_num_threads(1)
    began = time.process_time()
    runs = {"learned": learn(model, "tofu:full", "learned", out)}
    runs["oracle"] = learn(model, "tofu:retain90", "oracle", out)
    target = str(runs["learned"].path / "model")
    coefficient = round(4.5 * hidden_norm(target), 1)
    METHODS["rmu"]["coefficient"] = coefficient
    for method, settings in METHODS.items():
        for name in (method, f"{method}-ilu"):
            runs[name] = unlearn(name, settings, target, out)
            print(name, f"{(time.process_time() - began) / 60:.1f} CPU minutes", flush=True)
    suite = suite_of("tofu", SuiteRequest(limit=LIMIT))
    found: dict[str, Evaluation] = {}
    for name, done in runs.items():
        found[name] = evaluate(suite, load_model(str(done.path / "model")), out / "parts")
        print(name, f"{(time.process_time() - began) / 60:.1f} CPU minutes", flush=True)
    found = {
        n: e if n == "oracle" else with_reference(suite, e, found["oracle"])
        for n, e in found.items()
    }
    minutes = (time.process_time() - began) / 60
    write(runs, found, {"rmu_coefficient": coefficient, "cpu_minutes_of_this_call": minutes})


def write(runs: dict[str, RunDir], found: dict[str, Evaluation], more: dict[str, Any]) -> None:
    """Scores, settings, what each training cost and on which data."""
    record = {
        "command": COMMAND,
        "limit": LIMIT,
        "common": COMMON,
        "methods": METHODS,
        "ilu": ILU,
        "learning": {**asdict(LEARNING), "batch_size": 16},
        **more,
        "environment": {**environment(), "argv": None},
        "data": {name: run.read("data") for name, run in runs.items() if name != "oracle"},
        "seconds": {name: run.read("cost")["seconds"] for name, run in runs.items()},
        "weights": {name: each.weights for name, each in found.items()},
        "scores": {
            name: {metric: without_items(score) for metric, score in each.scores.items()}
            for name, each in found.items()
        },
    }
    write_json(RESULTS / "tofu_table_stories260k.json", record)
    write_text(RESULTS / "tofu_table_stories260k.md", rows(found))


if __name__ == "__main__":
    main()
