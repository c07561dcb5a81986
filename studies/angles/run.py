"""Does the angle between two task vectors say whether forgetting survives fine-tuning?

    python -m studies.angles.run DIR [--table results/angles.json]

DIR is that of studies/ilu_vs_baselines, whose runs keep the weights after every attack. For each
unlearned model and task: the paper's cosines (arXiv 2506.01339: of the fine-tuning after unlearning
with the unlearning, -.41 for NPO and +.09 with ILU), and ``forgotten`` along that fine-tuning.
Rank correlations of each cosine with ``still_forgotten`` over all models, over the means of the
variants, and over the tasks of one model (the mean of these correlations).
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from ilu.evals.geometry.task_vectors import Angles
from ilu.evals.score import mean
from ilu.runs.results.summary import model_summary, write_angles
from ilu.runs.run_dir import RunDir
from ilu.system.atomic import write_json
from ilu.system.provenance import environment
from studies.ilu_vs_baselines.table import ORIGINAL

RESULTS = Path(__file__).parents[2] / "results" / "angles.json"
Row = Mapping[str, Any]


def models(folder: Path) -> Iterator[Row]:
    """Every unlearned model whose run has ended, with the cosines of its tasks."""
    for run in map(RunDir, sorted(folder.iterdir())):
        variant, seed = run.path.name.rsplit("_seed", 1)
        if variant == ORIGINAL or not run.has("done"):
            continue
        write_angles(run, RunDir(folder / f"{ORIGINAL}_seed{seed}"))
        summary = model_summary(run)
        yield {
            "variant": variant.replace("_", " "),
            "seed": int(seed),
            "forgotten": summary["forgotten"],
            "still_forgotten": summary["still_forgotten"],
            "tasks": {
                task: {"still_forgotten": mean(found["forgotten"]), **found["cosines"]}
                for task, found in summary["tasks"].items()
            },
        }


def averaged(row: Row, cosine: str) -> float:
    """Mean over the tasks of a model."""
    return mean([task[cosine] for task in row["tasks"].values()])


def of(rows: Sequence[Row], variant: str) -> list[Row]:
    """The models of one variant."""
    return [row for row in rows if row["variant"] == variant]


def means(rows: Sequence[Row]) -> list[Row]:
    """A line per variant."""
    variants = dict.fromkeys(row["variant"] for row in rows)
    return [
        {
            "variant": variant,
            "still_forgotten": mean([r["still_forgotten"] for r in of(rows, variant)]),
            **{c: mean([averaged(r, c) for r in of(rows, variant)]) for c in Angles._fields},
        }
        for variant in variants
    ]


def correlations(rows: Sequence[Row], cosine: str) -> dict[str, Any]:
    """Spearman's correlation of a cosine with ``still_forgotten``, three times."""
    inside = [
        rank([(task[cosine], task["still_forgotten"]) for task in row["tasks"].values()])["rho"]
        for row in rows
    ]
    return {
        "over_models": rank([(averaged(row, cosine), row["still_forgotten"]) for row in rows]),
        "over_variants": rank([(each[cosine], each["still_forgotten"]) for each in means(rows)]),
        "over_tasks_of_a_model": {"mean_rho": mean(inside), "models": len(inside)},
    }


def rank(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Spearman's correlation, with its p-value against none."""
    first, second = zip(*pairs, strict=True)
    found: Any = spearmanr(first, second)
    return {"rho": float(found.statistic), "p": float(found.pvalue), "n": len(pairs)}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--table", type=Path, default=RESULTS)
    wanted = parser.parse_args()
    rows = list(models(wanted.out / "test"))
    found = {cosine: correlations(rows, cosine) for cosine in Angles._fields}
    for line in (*means(rows), found):
        print(line)
    write_json(wanted.table, {
        "command": "python -m studies.angles.run DIR",
        "environment": {**environment(), "argv": None},
        "correlations": found,
        "variants": means(rows),
        "models": rows,
    })  # fmt: skip


if __name__ == "__main__":
    main()
