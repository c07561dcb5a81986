"""Does the invariance penalty keep real knowledge forgotten in a real language model?

    ILU_HUB=../shared/hub python -m studies.real_model.run DIR [--families rmu npo]
        [--ways alone ilu control sam sam-ilu tar logits] [--topics elements capitals]
        [--tasks gsm8k sst2 winogrande mnli qqp] [--seeds 3] [--attack-steps 40] [--workers 1]

Every way of a family makes the same number of steps, and keeps the weights of the step whose
forgetting of the training wordings is nearest to ``FORGOTTEN``: so ways are compared at matched
forgetting. Then each is fine-tuned on every task, and on the documents of either half of the facts.
The same command again does only what is missing; the table is written after every run. Settings
were chosen on the topic ``states`` and the task ``ag_news``, which are in no table.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ilu.data.text import Passages
from ilu.evals.metrics.perplexity import DocumentPerplexity
from ilu.evals.score import mean
from ilu.recipes.build import build
from ilu.recipes.free_text import GENERATED
from ilu.runs.recipe import Recipe
from ilu.runs.results.forget_metric import FORGET, OTHERS, TASK, UTILITY
from ilu.runs.results.run_metrics import headline, read
from ilu.runs.run_dir import RunDir
from ilu.runs.sweep.local import run_all
from ilu.system.atomic import write_json
from ilu.system.provenance import environment
from ilu.system.scores import Score
from ilu.types import Group, Metric
from studies.real_model.attackers import TASKS, VALIDATION_TASK, finetuning, relearning
from studies.real_model.intervals import Place, Values, gains, interval

RESULTS = Path(__file__).parents[2] / "results" / "real_model.json"
MODEL, VALIDATION_TOPIC = "smollm2", "states"
TOPICS = ("elements", "capitals")
STEPS = {"rmu": 120, "npo": 60}
"""Of every way of a family."""
FORGOTTEN = 0.8
"""Share of the accuracy above guessing that is to be lost; about .6 of the questions."""
ENVIRONMENT = "openai/gsm8k:main"
LIMIT = 100
RATE, RELEARNING_RATE = 1e-4, 3e-5
"""Learning rates of the attacks: the largest of three that keep the utility (question 1)."""
LAMBADA = "EleutherAI/lambada_openai:default:test"
"""Only reported, never chosen by."""


class Way(NamedTuple):
    """The ending of a recipe's name, and its settings."""

    ending: str = ""
    settings: Mapping[str, Any] = {}


WAYS = {
    "alone": Way(),
    "ilu": Way("-ilu"),
    "control": Way("-control"),
    "sam": Way("-sam"),
    "sam-ilu": Way("-sam-ilu"),
    "tar": Way("-tar"),
    "logits": Way("-ilu", {"reading": "logits"}),
}
"""In the order in which rows are finished."""


class Cell(NamedTuple):
    """One run."""

    family: str
    way: str
    topic: str
    seed: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.topic}-{self.family}-{self.way}-seed{self.seed}"


def recipe(cell: Cell, tasks: Sequence[str], steps: int) -> Recipe:
    """Unlearning to the same share for every way, and the attacks after it."""
    way = WAYS[cell.way]
    reads = cell.way not in ("alone", "sam")
    settings = {
        "model": MODEL, "forget": f"facts:{cell.topic}", "retain": "facts:rest", "limit": LIMIT,
        "seed": cell.seed, "steps": STEPS[cell.family], "keep": FORGOTTEN,
        **({"environment": ENVIRONMENT} if reads else {}), **way.settings,
    }  # fmt: skip
    made = build(f"{cell.family}{way.ending}", settings)
    attacks = {
        **{
            task: finetuning(task, lr=RATE, steps=steps, only_end=False, seed=cell.seed)
            for task in tasks
        },
        **{
            f"half-{part}": relearning(
                cell.topic, part, lr=RELEARNING_RATE, steps=steps, seed=cell.seed
            )
            for part in ("a", "b")
        },
    }
    measured = {name: made.metrics[name] for name in (FORGET, UTILITY)}
    return replace(made, name=cell.name, metrics=measured, slow_metrics=slow(made), attacks=attacks)


def slow(made: Recipe) -> dict[str, Metric | Group]:
    """What is measured before and after the unlearning, and not during the attacks."""
    lambada = {"lambada_perplexity": DocumentPerplexity(Passages(LAMBADA, limit=24))}
    return {**made.slow_metrics, **lambada}


def row(cell: Cell, run: RunDir, tasks: Sequence[str]) -> dict[str, Any]:
    """What one run shows, in shares."""
    after = run.scores("after")
    stages = ("quarter", "half", "end")
    curves = {
        t: [1 - run.scores(f"{t}-{s}")[FORGET].value for s in stages if reached(run, t, s)]
        for t in tasks
    }
    ends = {t: run.scores(f"{t}-end") for t in tasks}
    halves = [1 - run.scores(f"half-{part}-end")[OTHERS].value for part in ("a", "b")]
    usable = headline(read(run))["worst_usable"]
    generated = [n for n in after if n not in (FORGET, UTILITY)]
    return {
        **cell._asdict(),
        "forgotten": 1 - after[FORGET].value,
        "still_forgotten": mean([x for curve in curves.values() for x in curve]),
        "tasks": curves,
        "task_accuracy": {t: s[TASK].value for t, s in ends.items() if TASK in s},
        "utility_choice": after[UTILITY].value,
        "utility_choice_before": run.scores("before")[UTILITY].value,
        "utility_generated": {n: after[n].value for n in generated},
        "utility_generated_before": {n: run.scores("before")[n].value for n in generated},
        "relearned": mean(halves),
        "worst_usable": None if usable is None else usable.value,
        "cosines": {},
        "seconds": run.read("cost")["seconds"],
        "peak_memory_bytes": run.read("cost")["peak_memory_bytes"],
        "run": run.path.name,
        "commit": run.read("environment")["commit"],
    }


def reached(run: RunDir, task: str, stage: str) -> bool:
    """Whether an attack was measured at a stage; short ones have fewer."""
    return run.has(f"scores/{task}-{stage}")


def still_forgotten(run: RunDir, tasks: Sequence[str]) -> list[float]:
    """For each fact the share of the fine-tunings at whose end it is still forgotten."""
    ends = [run.scores(f"{task}-end")[FORGET].items for task in tasks]
    return [mean([1 - float(x or 0) for x in each]) for each in zip(*ends, strict=True)]


def answered(run: RunDir, tasks: Sequence[str]) -> list[float]:
    """For each kept fact whether the greedy reply is right after unlearning."""
    return [float(x or 0) for x in generated(run).items]


def generated(run: RunDir) -> Score:
    """Exact answers to questions on facts that are kept and were not trained on."""
    return run.scores("after")[GENERATED]


def summary(runs: Mapping[Cell, RunDir], tasks: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each way, with 95 % intervals over seeds and facts."""

    def values(family: str, way: str, of: Callable[[RunDir, Sequence[str]], list[float]]) -> Values:
        chosen = {c: r for c, r in runs.items() if (c.family, c.way) == (family, way)}
        return {Place(c.topic, c.seed): of(r, tasks) for c, r in chosen.items()}

    found: list[dict[str, Any]] = []
    for family, way in dict.fromkeys((c.family, c.way) for c in runs):
        own = values(family, way, still_forgotten)
        over = {
            f"over_{other}": interval(gain)
            for other in ("alone", "control")
            if way != other and (gain := gains(own, values(family, other, still_forgotten)))
        }
        found.append({
            "family": family, "way": way, "n": len(own), "still_forgotten": interval(own), **over,
            "utility_generated": interval(values(family, way, answered)),
        })  # fmt: skip
    return found


def write(given: argparse.Namespace, cells: Mapping[Path, Cell]) -> None:
    """The record of the runs that are finished."""
    done = {c: RunDir(p) for p, c in cells.items() if (p / "done.json").is_file()}
    whole = {c: r for c, r in done.items() if not r.failures()}
    table = summary(whole, given.tasks)
    write_json(given.table, {
        "command": "python -m studies.real_model.run DIR",
        "model": MODEL,
        "forget_topics": list(given.topics),
        "validation_topic": VALIDATION_TOPIC,
        "validation_task": VALIDATION_TASK,
        "comparisons": sum(key.startswith("over_") for each in table for key in each),
        "attack_steps": given.attack_steps,
        "rows": [row(c, r, given.tasks) for c, r in whole.items()],
        "summary": table,
        "environment": {**environment(), "argv": None},
    })  # fmt: skip


def main() -> None:
    """Carry out what is missing, whole rows of the table first."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, metavar="DIR")
    parser.add_argument("--families", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--topics", nargs="+", default=list(TOPICS))
    parser.add_argument("--tasks", nargs="+", default=[t for t in TASKS if t != VALIDATION_TASK])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--attack-steps", type=int, default=40)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--table", type=Path, default=RESULTS)
    given = parser.parse_args()
    cells = {
        given.out / cell.name: cell
        for way in given.ways for family in given.families
        for topic in given.topics for seed in range(given.seeds)
        for cell in [Cell(family, way, topic, seed)]
    }  # fmt: skip
    jobs = {path: recipe(c, given.tasks, given.attack_steps) for path, c in cells.items()}
    for ended in run_all(jobs, workers=given.workers):
        print(ended.path.name, ended.error or "done", flush=True)
        write(given, cells)


if __name__ == "__main__":
    main()
