"""Do the lab's results hold on a larger model? A Llama of 34M weights that also reads English.

    ILU_HUB=../shared/hub python -m studies.lab_large.run DIR [--device cuda] [--seeds 3] [--tiny]
        [--table results/lab_large.json]

The model learns TinyStories and WikiText as well as the lab's world, so that the lab's questions
and tasks stay valid. RMU, alone and with the penalty, the control, SAM, SAM with the penalty, and
looking ahead over all weights, then unlearns the agents, is fine-tuned on the six tasks and
relearns. RMU's steering vector is 4.5 times as long as the hidden states; its steps are chosen on
seed 0 and the validation task, the variants keep them, and strengths are those of the lab. Meant
for one GPU and nine minutes a call; --tiny only shows that it runs. The same command again does
only what is missing.
"""

import argparse
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ilu.data.stream import Stream, collate
from ilu.data.text import Passages
from ilu.evals.score import mean
from ilu.lab.build import Plan, make_model, make_tokenizer, scores
from ilu.lab.corpus import CONTEXT, corpus, packed
from ilu.lab.sources import Documents
from ilu.lab.tasks import VALIDATION
from ilu.methods.retain.likelihood import NLL
from ilu.models.forward import ModelForward
from ilu.models.load import load_model
from ilu.models.named import LAB
from ilu.recipes import lab
from ilu.recipes.build import build
from ilu.runs.recipe import Recipe
from ilu.runs.results.forget_metric import UTILITY
from ilu.runs.results.summary import forgotten_share, model_summary
from ilu.runs.run import Options, run_once
from ilu.runs.run_dir import RunDir
from ilu.system.atomic import new_folder, write_json
from ilu.system.provenance import environment
from ilu.system.scores import STAGES
from ilu.training.fit import Optim, Row, fit
from ilu.training.objective import Term
from ilu.types import LM, Example

TABLE = Path(__file__).parents[2] / "results" / "lab_large.json"
PLAN = Plan(
    vocabulary=8192,
    width=512,
    depth=8,
    heads=8,
    optim=Optim(lr=1e-3, steps=3000, warmup=200, schedule="cosine", weight_decay=0.01,
                precision="bfloat16"),
    batch_size=128,
)  # fmt: skip
TINY = replace(PLAN, vocabulary=512, width=32, depth=4, heads=2, batch_size=8,
               optim=replace(PLAN.optim, steps=3, warmup=1))  # fmt: skip
ENGLISH = ("roneneldan/TinyStories:default:train", "Salesforce/wikitext:wikitext-2-raw-v1:test")
LAYER, QUESTIONS, TUNE, RELEARN = 3, 240, 60, 30
STEPS = (150, 300, 450)
VARIANTS: dict[str, dict[str, Any]] = {
    "rmu": {},
    "rmu-control": {"strength": 0.1, "scale_free": True},
    "rmu-ilu": {"strength": 0.1, "scale_free": True},
    "rmu-sam": {"rho": 0.5, "perturbed": "."},
    "rmu-sam-ilu": {"rho": 0.5, "perturbed": ".", "reading": "elementwise", "strength": 0.03,
                    "scale_free": True},
    "rmu-lookahead": {"lookahead_step": 6e-3},
}  # fmt: skip


def learn(out: Path, plan: Plan, device: str, english: int | None) -> None:
    """Pretrain the model and save it with what it knows."""
    started = time.monotonic()
    prose = [text for name in ENGLISH for text in Passages(name, limit=english)()]
    tokenizer = make_tokenizer([*corpus(0), *prose], plan.vocabulary)
    lm = LM(make_model(plan, len(tokenizer)).to(device), tokenizer)
    world = [e for epoch in range(8) for e in packed(tokenizer, corpus(epoch))]
    examples = [*world, *pieces(tokenizer, prose)]

    def log(row: Row) -> None:
        if row["step"] % 200 == 0:
            print(f"step {row['step']:.0f}: {row['text']:.3f}", flush=True)

    stream = Stream(examples, plan.batch_size, plan.seed)
    fit(lm.model, {"text": Term(NLL(), on="text")}, {"text": stream}, plan.optim, log=log)
    with new_folder(out) as folder:
        lm.model.save_pretrained(folder)  # pyright: ignore[reportCallIssue]
        tokenizer.save_pretrained(folder)
        count = sum(p.numel() for p in lm.model.parameters())
        minutes = (time.monotonic() - started) / 60
        record = {"weights": count, "minutes": minutes, "scores": scores(lm)}
        write_json(folder / "build.json", record)


def pieces(tokenizer: Any, texts: list[str]) -> Iterator[Example]:
    """Prose in examples of as many tokens as those of the world have at most."""
    for ids in tokenizer(texts).input_ids:
        yield from (Example(ids[i : i + CONTEXT], 0) for i in range(0, len(ids), CONTEXT))


@torch.no_grad()
def hidden_norm(model: Path, device: str) -> float:
    """Mean norm of the hidden states that RMU steers, on 64 documents about agents."""
    lm = load_model(str(model), device=device)
    batch = collate(Documents("agents")(lm.tokenizer)[:64]).to(torch.device(device))
    norms = ModelForward(lm.model).hidden(batch, LAYER).norm(dim=-1)
    return norms[batch.attention_mask.bool()].mean().item()


def variant(name: str, model: Path, coefficient: float, steps: int, seed: int) -> Recipe:
    """A variant of unlearning the lab's agents, on the larger model and without attacks."""
    settings = {"lr": 5e-4, "layer": LAYER, "coefficient": coefficient, "direction_seed": seed}
    environments = {} if name == "rmu" else {"environment_batch_size": 16}
    made = build(name, {"model": LAB, "steps": steps, "seed": seed, **settings,
                        **environments, **VARIANTS[name]})  # fmt: skip
    return replace(made, model=str(model.resolve()))


def tuned(made: Recipe, questions: int, tune: int) -> Recipe:
    """The recipe with the validation task behind it."""
    attacks = {VALIDATION.name: lab.finetune(VALIDATION.name, tune)}
    return replace(made, metrics=lab.metrics(questions), attacks=attacks)


def goodness(run: RunDir) -> float:
    """``forgotten`` along the validation task, and utility before it."""
    along = mean([forgotten_share(run, f"{VALIDATION.name}-{stage}") for stage in STAGES])
    return along + run.scores("after")[UTILITY].value


def row(name: str, runs: list[RunDir]) -> Mapping[str, Any]:
    """Means over the seeds of a variant."""
    found = [model_summary(run) for run in runs]
    keys = ("forgotten", "utility", "still_forgotten", "task_accuracy", "after_relearning")
    means = {key: mean([each[key] for each in found]) for key in keys}
    seconds = mean([run.read("cost")["seconds"] for run in runs])
    return {"method": name, "seeds": len(runs), **means, "seconds": seconds}


def main() -> None:
    """Learn, choose RMU's steps, carry out what is missing; write the table after every run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--table", type=Path, default=TABLE)
    wanted = parser.parse_args()
    out, device, tiny = wanted.out, wanted.device, wanted.tiny
    questions, tune, relearn = (8, 4, 2) if tiny else (QUESTIONS, TUNE, RELEARN)
    choices = (2, 3) if tiny else STEPS
    if not (out / "model").exists():
        learn(out / "model", TINY if tiny else PLAN, device, 50 if tiny else None)
    options = Options(device=device)
    coefficient = round(4.5 * hidden_norm(out / "model", device), 1)
    tried = {
        steps: run_once(
            tuned(variant("rmu", out / "model", coefficient, steps, 0), questions, tune),
            out / "choice",
            options,
        )
        for steps in choices
    }
    steps = max(tried, key=lambda n: goodness(tried[n]))
    runs: dict[str, list[RunDir]] = {}
    for seed in range(1, wanted.seeds + 1):
        for name in VARIANTS:
            made = variant(name, out / "model", coefficient, steps, seed)
            attacks = lab.attacks(tune, relearn, questions, seed)
            made = replace(made, metrics=lab.metrics(questions), attacks=attacks)
            runs.setdefault(name, []).append(run_once(made, out / "test", options))
            print(name, seed, flush=True)
            write_json(wanted.table, {
                "command": "python -m studies.lab_large.run DIR --device " + device,
                "environment": {**environment(), "argv": None},
                "model": RunDir(out / "model").read("build"),
                "rmu": {"coefficient": coefficient, "steps": steps},
                "choice": {n: goodness(run) for n, run in tried.items()},
                "rows": [row(name, each) for name, each in runs.items()],
            })  # fmt: skip


if __name__ == "__main__":
    main()
