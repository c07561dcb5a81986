"""Which lambda for ILU on the lab? Chosen on the validation attack, on which nothing is reported.

    python -m studies.lab_strength.run     # 15 minutes on one core

Writes results/lab_strength.json. Every row: unlearn the lab's model, then fine-tune it on the task
`next`. ``forgotten`` after unlearning and at a quarter, half and the end of the fine-tuning. One
seed. More steps for larger lambda, because the penalty slows forgetting and rows should be compared
at similar ``forgotten``.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ilu.lab.tasks import VALIDATION
from ilu.recipes.build import build
from ilu.recipes.demo import FULL
from ilu.recipes.lab import finetune
from ilu.runs.results.summary import forgotten_share
from ilu.runs.run import run
from ilu.system.atomic import write_json
from ilu.system.scores import STAGES

RESULTS = Path(__file__).parents[2] / "results" / "lab_strength.json"
ROWS: list[tuple[str, dict[str, Any]]] = [
    ("rmu", {"steps": 300}),
    ("rmu", {"steps": 500}),
    ("rmu-ilu", {"strength": 30.0, "steps": 400}),
    ("rmu-ilu", {"strength": 100.0, "steps": 500}),
    ("rmu-ilu", {"strength": 300.0, "steps": 600}),
    ("rmu-ilu", {"strength": 1000.0, "steps": 600}),
    ("npo", {"steps": 100}),
    ("npo-ilu", {"strength": 1e-3, "steps": 130}),
    ("npo-ilu", {"strength": 1e-2, "steps": 130}),
    ("npo-ilu", {"strength": 1e-1, "steps": 150}),
]


def row(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Unlearn and attack once."""
    attacks = {VALIDATION.name: finetune(VALIDATION.name, FULL.tune)}
    recipe = replace(build(name, {"model": "lab", **settings}), attacks=attacks)
    with tempfile.TemporaryDirectory() as folder:
        out = run(recipe, Path(folder) / "run")
        along = [forgotten_share(out, f"{VALIDATION.name}-{stage}") for stage in STAGES]
        found = {
            "forgotten": forgotten_share(out, "after"),
            "utility": out.scores("after")["utility"].value,
            "validation_forgotten": along,
        }
    return {"recipe": name, **settings, **found}


def main() -> None:
    """Carry out every row, print it and write all of them."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    found: list[dict[str, Any]] = []
    for name, settings in ROWS:
        found.append(row(name, settings))
        print(found[-1], file=sys.stderr)
    record = {"command": "python -m studies.lab_strength.run", "torch": torch.__version__}
    write_json(RESULTS, {**record, "rows": found})


if __name__ == "__main__":
    main()
