"""Does the invariance penalty keep real knowledge forgotten in a real language model?

    ILU_HUB=../shared/hub python -m studies.real_model.run DIR [--families rmu npo]
        [--ways alone ilu control sam sam-ilu tar logits] [--topics elements capitals]
        [--tasks gsm8k sst2 winogrande mnli qqp] [--seeds 3] [--attack-steps 40] [--only-end]
        [--workers 1]

The model before unlearning is attacked first, without relearning: task vectors of the others are
compared with its own. Every way of a family makes the same number of steps, and keeps the weights
of the step whose forgetting of the training wordings is nearest to ``FORGOTTEN`` (cells.py): so
ways are compared at matched forgetting. Then each is fine-tuned on every task, and on the documents
of either half of the facts. The same command again does only what is missing; the table is written
after every run. Settings were chosen on the topic ``states`` and the task ``ag_news``, which are in
no table.
"""

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path

from ilu.runs.results.summary import write_angles
from ilu.runs.run_dir import RunDir
from ilu.runs.sweep.local import Conditions, run_all
from ilu.system.atomic import write_json
from ilu.system.provenance import environment
from studies.real_model.attackers import ORIGINAL, TASKS, VALIDATION_TASK
from studies.real_model.cells import (
    MODEL,
    STEPS,
    TOPICS,
    VALIDATION_TOPIC,
    WAYS,
    Attacks,
    Cell,
    recipe,
)  # fmt: skip
from studies.real_model.table import row, summary

RESULTS = Path(__file__).parents[2] / "results" / "real_model.json"


def write(given: argparse.Namespace, cells: Mapping[Path, Cell]) -> None:
    """The record of the runs that are finished."""
    done = {c: RunDir(p) for p, c in cells.items() if (p / "done.json").is_file()}
    complete = {c: r for c, r in done.items() if not r.failures()}
    table = summary(complete, given.tasks)
    write_json(given.table, {
        "command": "python -m studies.real_model.run DIR",
        "model": MODEL,
        "forget_topics": list(given.topics),
        "validation_topic": VALIDATION_TOPIC,
        "validation_task": VALIDATION_TASK,
        "comparisons": sum("over_" in key for each in table for key in each),
        "tasks": list(given.tasks),
        "attack_steps": given.attack_steps,
        "only_end": given.only_end,
        "rows": [row(c, r, given.tasks) for c, r in complete.items()],
        "summary": table,
        "environment": {**environment(), "argv": None},
    })  # fmt: skip


def compare(path: Path, original: Path) -> None:
    """Compare the task vectors with those of the original, then delete the attacked weights."""
    run = RunDir(path)
    if run.has("vectors") or not run.has("done") or run.failures() or not original.is_dir():
        return
    write_angles(run, RunDir(original))
    shutil.rmtree(path / "attacks")


def planned(given: argparse.Namespace) -> dict[Path, Cell]:
    """The runs by folder: the original models, then complete rows of the table."""
    places = [(topic, seed) for topic in given.topics for seed in range(given.seeds)]
    cells = [Cell(ORIGINAL, "alone", *place) for place in places]
    cells += [
        Cell(family, way, *place)
        for way in given.ways for family in given.families for place in places
    ]  # fmt: skip
    return {given.out / cell.name: cell for cell in cells}


def main() -> None:
    """Carry out what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, metavar="DIR")
    parser.add_argument("--families", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--topics", nargs="+", default=list(TOPICS))
    parser.add_argument("--tasks", nargs="+", default=[t for t in TASKS if t != VALIDATION_TASK])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--attack-steps", type=int, default=40)
    parser.add_argument("--only-end", action="store_true", help="measure attacks at their end only")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--table", type=Path, default=RESULTS)
    given = parser.parse_args()
    attacks = Attacks(given.tasks, given.attack_steps, given.only_end)
    cells = planned(given)
    jobs = {path: recipe(cell, attacks) for path, cell in cells.items()}
    conditions = Conditions(shared=given.out / "shared")
    for ended in run_all(jobs, workers=given.workers, conditions=conditions):
        print(ended.path.name, ended.error or "done", flush=True)
        cell = cells[ended.path]
        if cell.family != ORIGINAL:
            compare(ended.path, given.out / Cell(ORIGINAL, "alone", cell.topic, cell.seed).name)
        write(given, cells)


if __name__ == "__main__":
    main()
