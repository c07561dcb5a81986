"""Do the default settings forget real knowledge in a real language model, and keep the rest?

    ILU_HUB=../shared/hub python -m studies.real_defaults.run DIR [--model smollm2]
        [--topics capitals authors] [--methods npo rmu ...] [--limit 100] [--workers 1]
        [--table results/real_defaults.json]

Every method runs with nothing chosen but the model and the topic of `facts` to forget, on all
weights and on low-rank adapters. The rules behind the defaults were found on the topics `states`
and `elements`, which are in no table. The questions have wordings that no document has. Utility is
on facts that were not trained on; the perplexity is on the validation split of WikiText-2, where
the hub or its mirror has it. The same command again does only what is missing.
"""

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ilu.evals.score import written
from ilu.recipes.build import build
from ilu.recipes.free_text import DEGENERATE, GENERATED, PERPLEXITY
from ilu.runs.recipe import Recipe
from ilu.runs.run_dir import RunDir
from ilu.runs.sweep.local import Conditions, run_all
from ilu.system.atomic import write_json, write_text
from ilu.system.provenance import environment
from ilu.system.scores import Score

RESULTS = Path(__file__).parents[2] / "results" / "real_defaults.json"
METHODS = ("npo", "simnpo", "rmu", "graddiff", "npo-ilu", "rmu-ilu")
ENVIRONMENT = "openai/gsm8k:main"
GOALS = {"forgotten": 0.5, "utility_kept": 0.9, "perplexity_ratio": 1.15}
"""At least, at least, at most."""
ADAPTERS = {"all weights": 0, "adapters": 16}


def recipe(method: str, model: str, topic: str, rank: int, limit: int) -> Recipe:
    """A run with the defaults; the penalty's environment is GSM8K."""
    environment = {"environment": ENVIRONMENT} if method.endswith("-ilu") else {}
    adapters = {"lora_rank": rank} if rank else {}
    settings = {"model": model, "forget": f"facts:{topic}", "retain": "facts:rest"}
    return build(method, {**settings, "limit": limit, **environment, **adapters})


def row(run: RunDir, method: str, weights: str, topic: str) -> dict[str, Any]:
    """One line of the table."""
    before, after = run.scores("before"), run.scores("after")
    record: dict[str, Any] = {"method": method, "weights": weights, "topic": topic}
    record |= {"forgotten_before": 1 - before["forget_accuracy"].value}
    record |= {"forgotten": 1 - after["forget_accuracy"].value}
    record |= {"forgotten_stderr": after["forget_accuracy"].stderr, "n": after["forget_accuracy"].n}
    record |= {"utility_before": before["utility"].value, "utility": after["utility"].value}
    record |= {"utility_kept": after["utility"].value / before["utility"].value}
    record |= {"generated_before": before[GENERATED].value, "generated": after[GENERATED].value}
    record |= {"degenerate_before": before[DEGENERATE].value, "degenerate": after[DEGENERATE].value}
    if PERPLEXITY in after:
        record["perplexity"] = after[PERPLEXITY].value
        record["perplexity_ratio"] = after[PERPLEXITY].value / before[PERPLEXITY].value
    record["misses"] = misses(record)
    record["seconds"] = run.read("cost")["seconds"]
    record["commit"] = run.read("environment")["commit"]
    record["settings"] = settings(run.read("recipe"))
    return record


def misses(record: Mapping[str, Any]) -> list[str]:
    """The goals that are not met."""
    low = [key for key in ("forgotten", "utility_kept") if record[key] < GOALS[key]]
    return low + (["perplexity_ratio"] if record.get("perplexity_ratio", 0) > 1.15 else [])


def settings(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What was chosen for the model."""
    optim = {key: recipe["optim"][key] for key in ("lr", "steps", "parameters")}
    forget = {k: v for k, v in recipe["objective"]["forget"]["loss"].items() if k != "type"}
    return {**optim, **forget, "batch_size": recipe["data"]["forget"]["batch_size"]}


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table for readers."""
    head = ("method", "weights", "topic", "forgotten", "utility", "kept", "perplexity", "misses")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for each in rows:
        score = Score(each["forgotten"], each["forgotten_stderr"], each["n"])
        cells = (
            each["method"], each["weights"], each["topic"],
            written(score.value, score.stderr, score.n), f"{each['utility']:.3f}",
            f"{each['utility_kept']:.2f}", f"{each.get('perplexity_ratio', math.nan):.2f} x",
            ", ".join(each["misses"]) or "none",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Carry out what is missing, and write the table of what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, metavar="DIR")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--topics", nargs="+", default=["capitals", "authors"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--weights", nargs="+", choices=list(ADAPTERS), default=list(ADAPTERS))
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--table", type=Path, default=RESULTS)
    given = parser.parse_args()
    cells = {
        given.out / f"{Path(given.model).stem}-{topic}-{method}-{weights.replace(' ', '-')}": (
            method, weights, topic,
        )
        for topic in given.topics for method in given.methods for weights in given.weights
    }  # fmt: skip
    jobs = {
        path: recipe(method, given.model, topic, ADAPTERS[weights], given.limit)
        for path, (method, weights, topic) in cells.items()
    }
    conditions = Conditions(shared=given.out / "shared")
    for outcome in run_all(jobs, workers=given.workers, conditions=conditions):
        print(outcome.path.name, outcome.error or "done", flush=True)
        write(given, cells)


def write(given: argparse.Namespace, cells: Mapping[Path, tuple[str, str, str]]) -> None:
    """Write the rows of the runs that are finished."""
    done = {path: cell for path, cell in cells.items() if (path / "done.json").is_file()}
    rows = [row(RunDir.finished(path), *cell) for path, cell in done.items()]
    command = "python -m studies.real_defaults.run DIR"
    record = {"command": command, "model": Path(given.model).stem, "goals": GOALS, "rows": rows}
    write_json(given.table, {**record, "environment": environment()})
    write_text(given.table.with_suffix(".md"), markdown(rows))


if __name__ == "__main__":
    main()
