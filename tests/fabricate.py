"""Run directories made by hand, with numbers that a test knows."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ilu.evals.score import mean_score
from ilu.runs.run_dir import RunDir
from ilu.system.scores import Score

Items = Sequence[float]
QUESTIONS = {"type": "some.questions", "count": 8}


def score(items: Items) -> Score:
    return mean_score([float(item) for item in items])


def recipe(name: str, seed: int, attacks: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "seed": seed,
        "objective": {} if name == "original" else {"forget": {}},
        "optim": {"steps": 4},
        "metrics": {"forget_accuracy": QUESTIONS, "utility": QUESTIONS},
        "attacks": {
            attack: {"optim": {"steps": 8}, "goals": goals_of(stages), "seed": seed}
            for attack, stages in attacks.items()
        },
        **more,
    }


def goals_of(stages: Mapping[str, Mapping[str, Items]]) -> dict[str, Any]:
    return {m: QUESTIONS for m in stages["end"] if m not in ("forget_accuracy", "utility")}


def make_run(
    path: Path,
    name: str,
    before: Items,
    after: Items,
    attacks: Mapping[str, Mapping[str, Mapping[str, Items]]],
    *,
    seed: int = 0,
    utility: tuple[Items, Items] = ((1,) * 8, (1,) * 8),
    items: bool = True,
    done: bool = True,
    **more: Any,
) -> Path:
    """``attacks``: name -> stage -> metric -> the value of each question."""
    run = RunDir(path)
    stages: dict[str, dict[str, Items]] = {
        "before": {"forget_accuracy": before, "utility": utility[0]},
        "after": {"forget_accuracy": after, "utility": utility[1]},
    }
    for attack, found in attacks.items():
        stages |= {f"{attack}-{stage}": dict(metrics) for stage, metrics in found.items()}
    for stage, metrics in stages.items():
        scores = {metric: score(values) for metric, values in metrics.items()}
        if not items:
            scores = {metric: s._replace(items=()) for metric, s in scores.items()}
        run.write_scores(stage, scores)
    run.write("recipe", recipe(name, seed, attacks, **more))
    run.write("environment", {"commit": "abc", "dirty": False, "argv": ["unlearn", name]})
    run.write("data", {f"attack {a}": {"examples": 80} for a in attacks})
    rows = [{"step": i, "lr": 0.1, "grad_norm": 1.0, "forget": 3.0 - i} for i in range(4)]
    (path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if done:
        run.write("done", {"seconds": 3.0, "peak_memory_bytes": 1})
    return path


def tuned(quarter: Items, half: Items, end: Items, task: Items) -> dict[str, dict[str, Items]]:
    """The stages of a downstream fine-tuning."""
    return {
        "quarter": {"forget_accuracy": quarter},
        "half": {"forget_accuracy": half},
        "end": {"forget_accuracy": end, "task_accuracy": task},
    }


def relearned(forget: Items, others: Items) -> dict[str, dict[str, Items]]:
    """The stages of a relearning attack."""
    return {
        "quarter": {"forget_accuracy": forget},
        "half": {"forget_accuracy": forget},
        "end": {"forget_accuracy": forget, "others_accuracy": others},
    }


KNOWN, LOST = (1,) * 8, (0,) * 8
HALF, MOST = (1, 1, 1, 1, 0, 0, 0, 0), (1, 1, 1, 1, 1, 1, 0, 0)


def defended(path: Path, name: str = "npo", **more: Any) -> Path:
    """A run that forgot everything: a fine-tuning brings half back, relearning most."""
    attacks = {"mood": tuned(LOST, HALF, HALF, KNOWN), "relearn": relearned(KNOWN, MOST)}
    return make_run(path, name, KNOWN, LOST, attacks, **more)
