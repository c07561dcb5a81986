"""Which settings does each method need on the lab? Chosen on cloze sentences, not on questions.

    python -m studies.lab_methods.run [METHOD ...]   # adds to results/lab_methods.json

Every method is tried at a few settings, in up to three rounds. The choice is the one with the
largest difference between the accuracies on the retain and on the forget set, both on *cloze*
sentences; the questions, on which results are reported, take no part in the choice.
"""

import argparse
import itertools
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ilu.evals.metrics.multiple_choice import Choice
from ilu.lab.sources import Facts
from ilu.recipes.build import build
from ilu.runs.run import run
from ilu.system.atomic import write_json
from ilu.types import Metric

RESULTS = Path(__file__).parents[2] / "results" / "lab_methods.json"
METRICS: dict[str, Metric] = {
    "forget_cloze": Choice(Facts("agents", "cloze")),
    "utility_cloze": Choice(Facts("people", "cloze")),
    "forget_accuracy": Choice(Facts("agents")),
    "utility": Choice(Facts("people")),
}
GRIDS: dict[str, dict[str, list[Any]]] = {
    "ascent": {"lr": [3e-4], "steps": [10, 20, 40]},
    "graddiff": {"lr": [3e-4, 1e-3], "gamma": [1.0, 3.0, 10.0], "steps": [60]},
    "kl": {"lr": [3e-4, 1e-3], "gamma": [3.0, 10.0, 30.0], "steps": [60]},
    "divergence": {"lr": [3e-4, 1e-3], "gamma": [1.0, 10.0], "steps": [60]},
    "token-npo": {"lr": [3e-4, 1e-3], "beta": [0.5, 2.0], "steps": [100]},
    "simnpo": {"lr": [3e-4, 1e-3], "beta": [0.5, 2.5], "forget_weight": [0.125, 1.0]},
    "dpo": {"lr": [3e-4, 1e-3], "beta": [0.01, 0.1]},
    "po": {"lr": [3e-4, 1e-3], "steps": [100]},
    "jensun": {"lr": [3e-4, 1e-3], "steps": [100]},
    "random-labels": {"lr": [3e-4, 1e-3], "gamma": [1.0, 5.0], "steps": [100]},
    "undial": {"lr": [3e-4, 1e-3], "beta": [10.0], "steps": [100]},
    "wga": {"lr": [3e-4, 1e-3], "gamma": [1.0, 3.0]},
    "satimp": {"lr": [3e-4, 1e-3], "saturation": [1.0, 5.0], "forget_weight": [1.0]},
    "ceu": {"lr": [3e-4, 1e-3], "gamma": [0.0, 1.0]},
    "pdu": {"lr": [3e-4, 1e-3], "retain_limit": [0.5], "dual_rate": [1.0], "gamma": [20.0, 100.0]},
    "entropy": {"lr": [3e-4, 1e-3], "gamma": [1.0, 2.0]},
    "adaptive-rmu": {
        "lr": [1e-3],
        "layer": [3],
        "scale": [3.0, 5.0],
        "alpha": [2.0, 5.0],
        "steps": [300],
    },
    "circuit-breakers": {
        "lr": [3e-4, 1e-3],
        "layers": [[1, 3], [2, 4]],
        "ramp": [200],
        "steps": [150],
    },
    "elm": {"lr": [3e-4, 1e-3], "eta": [10.0, 1000.0], "gamma": [1.0, 5.0]},
    "repnoise": {"lr": [3e-4], "layer": [3], "alpha": [1.0, 4.0], "beta": [0.001, 1.0]},
    "task-vector": {"lr": [3e-4, 1e-3], "alpha": [0.5, 1.0, 2.0], "steps": [50]},
    "whp": {"lr": [3e-4, 1e-3], "gamma": [0.0, 1.0], "alpha": [5.0], "reinforce_lr": [1e-3]},
    "finetune": {"lr": [1e-3, 3e-3], "steps": [200]},
    "l1-sparse": {"lr": [1e-3], "steps": [200], "l1": [1e-4, 1e-3]},
    "npo-sam": {"rho": [0.01, 0.05]},
    "npo-rs": {"sigma": [1e-4, 1e-3]},
    "npo-gp": {"penalty": [0.1, 1.0, 10.0]},
    "npo-cr": {"penalty": [1.0, 10.0], "mu": [0.01]},
    "npo-lat": {
        "attack_layer": [2],
        "epsilon": [2.0, 10.0],
        "attack_steps": [4],
        "attack_lr": [0.5],
    },
    "npo-tar": {
        "inner_steps": [8],
        "inner_every": [4],
        "inner_lr": [3e-4],
        "steps": [50, 100],
        "beta": [0.01],
    },
    "npo-mudman": {"adversary_steps": [2], "adversary_lr": [3e-4], "steps": [100]},
    "rmu-lat": {
        "attack_layer": [2],
        "epsilon": [2.0, 10.0],
        "attack_steps": [4],
        "attack_lr": [0.5],
    },
    "rmu-tar": {"inner_steps": [8], "inner_every": [4], "inner_lr": [3e-4], "steps": [100]},
}


SECOND: dict[str, dict[str, list[Any]]] = {
    "graddiff": {"lr": [3e-4], "gamma": [2.0, 5.0], "steps": [60]},
    "dpo": {"lr": [3e-4], "beta": [0.01, 0.03]},
    "po": {"lr": [3e-3], "steps": [200]},
    "jensun": {"lr": [3e-4], "gamma": [0.3], "steps": [200]},
    "random-labels": {"lr": [3e-4], "gamma": [0.3], "steps": [200]},
    "undial": {"lr": [1e-3], "beta": [30.0], "gamma": [0.3], "steps": [200]},
    "wga": {"lr": [1e-3], "gamma": [0.5], "steps": [100]},
    "satimp": {"lr": [1e-3], "saturation": [1.0], "forget_weight": [3.0], "steps": [100]},
    "circuit-breakers": {"lr": [1e-3, 2e-3], "layers": [[2, 4]], "ramp": [300], "steps": [250]},
    "elm": {"lr": [1e-3], "eta": [1000.0], "gamma": [0.3], "steps": [250]},
    "task-vector": {"lr": [1e-3], "alpha": [3.0, 4.0], "steps": [50]},
    "whp": {"lr": [1e-3], "gamma": [0.0], "alpha": [50.0], "reinforce_lr": [1e-3], "steps": [200]},
    "ceu": {"lr": [3e-4], "gamma": [0.3], "steps": [200]},
    "l1-sparse": {"lr": [1e-3], "steps": [200], "l1": [1e-5]},
    "npo-tar": {
        "inner_steps": [8],
        "inner_every": [4],
        "inner_lr": [3e-4],
        "inner_scale": [0.3],
        "steps": [100],
    },
    "rmu-tar": {
        "inner_steps": [8],
        "inner_every": [4],
        "inner_lr": [3e-4],
        "inner_scale": [0.5],
        "steps": [150],
    },
    "npo-lat": {"attack_layer": [2], "epsilon": [0.5], "attack_steps": [4], "attack_lr": [0.5]},
}
"""A second round for methods whose first one hardly forgot, or forgot everything."""

THIRD: dict[str, dict[str, list[Any]]] = {
    "ascent": {"lr": [3e-4], "steps": [25, 30]},
    "l1-sparse": {"lr": [1e-3], "steps": [200], "l1": [1e-6, 3e-6]},
    "ceu": {"lr": [3e-4, 1e-3], "gamma": [0.03, 0.1], "steps": [100]},
    "undial": {"lr": [1e-3], "beta": [30.0], "gamma": [0.0, 0.03, 0.1], "steps": [100]},
    "jensun": {"lr": [3e-4, 1e-3], "gamma": [0.03, 0.1, 0.3], "steps": [100]},
    "random-labels": {"lr": [3e-4, 1e-3], "gamma": [0.1, 0.3], "steps": [100]},
    "whp": {
        "lr": [1e-3],
        "alpha": [5.0, 50.0],
        "reinforce_lr": [3e-3],
        "reinforce_steps": [200],
        "steps": [200],
    },
}
"""A third for those that the table of every method showed to do nothing or too much."""
ROUNDS = (GRIDS, SECOND, THIRD)


def try_settings(method: str, settings: dict[str, Any], out: Path) -> dict[str, float]:
    """Scores after unlearning."""
    recipe = replace(build(method, {"model": "lab", **frozen(settings)}), metrics=METRICS)
    return {name: s.value for name, s in run(recipe, out).scores("after").items()}


def frozen(settings: dict[str, Any]) -> dict[str, Any]:
    """Lists, which JSON has, as tuples, which recipes have."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}


def choice(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The setting with the largest difference between retain and forget accuracy."""
    return max(rows, key=lambda r: gap(r["scores"]))


def gap(scores: dict[str, float]) -> float:
    """Cloze accuracy on the retain set minus that on the forget set."""
    return scores["utility_cloze"] - scores["forget_cloze"]


def every(grid: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """All settings of a grid; none of an empty one."""
    values = itertools.product(*grid.values()) if grid else ()
    return [dict(zip(grid, each, strict=True)) for each in values]


def main() -> None:
    """Try every setting of the methods' grids that has not been tried."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("methods", nargs="*", metavar="METHOD")
    methods: list[str] = parser.parse_args().methods
    torch.set_num_threads(1)
    for method in methods or list(GRIDS):
        for settings in (s for grids in ROUNDS for s in every(grids.get(method, {}))):
            known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
            rows = known.get(method, {"tried": []})["tried"]
            if settings in [r["settings"] for r in rows]:
                continue
            with tempfile.TemporaryDirectory() as folder:
                scores = try_settings(method, settings, Path(folder) / "run")
            print(method, settings, {k: round(v, 3) for k, v in scores.items()}, flush=True)
            rows.append({"settings": settings, "scores": scores})
            known[method] = {"tried": rows, "chosen": choice(rows)}
            write_json(RESULTS, known)


if __name__ == "__main__":
    main()
