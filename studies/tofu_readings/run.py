"""Does a reading of the invariance penalty keep TOFU forgotten, where all are tuned alike?

    ILU_HUB=../shared/hub python -m studies.tofu_readings.run ../shared/models/stories260k DIR
        [--methods npo graddiff] [--seeds 3] [--workers 1] [--table results/tofu_readings.json]

Continues studies/tofu_attacks, in the same DIR: its models, rates, attacks and seeds. NPO and
GradDiff, the methods of that study whose forgetting is more than damage, each alone, with the
penalty over GSM8K in each of its readings, with the control, with SAM, and with SAM and the
reading that did best on the lab. The measure is the selective knowledge of that study. Every
variant is trained with each of its settings on seed 0 and then fine-tuned on TinyStories, on which
no result is reported. Kept is the setting with the least knowledge after that: of the method alone
among those with less than a fifth of it before, of the others among those that before have at most
a tenth more than it and a retain loss at most .1 above its; if there is none, the nearest to that,
and its row says how far off. The same command again does only what is missing.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ilu.data.text import Dataset
from ilu.evals.score import mean
from ilu.recipes.build import build
from ilu.runs.recipe import Recipe
from ilu.runs.run_dir import RunDir
from ilu.runs.sweep.local import run_all
from ilu.system.atomic import write_json, write_text
from ilu.system.provenance import environment
from ilu.types import Attack
from studies.ilu_vs_baselines.differences import difference, gain, interval, low
from studies.tofu_attacks import run as study

RESULTS = Path(__file__).parents[2] / "results" / "tofu_readings.json"
SLACK = 0.1
VALIDATION = "tinystories"
READINGS = ("gradient", "logits", "parameters", "tensors", "elementwise")
Settings = dict[str, Any]
LENGTHS: list[Settings] = [{"steps": 40}, {"steps": 80}]
RADII: list[Settings] = [
    {"rho": rho, "steps": steps} for rho, steps in ((0.03, 40), (0.1, 40), (0.1, 80), (0.3, 80))
]
SEEN: list[Settings] = [
    {**study.SEEN, **each}
    for each in (
        {"strength": 0.01},
        {"strength": 0.1},
        {"strength": 0.1, "steps": 80},
    )
]
ELEMENTWISE: Settings = {**study.SEEN, "reading": "elementwise", "strength": 0.1}


class Variant(NamedTuple):
    """What is added to a method, and the settings that may be chosen."""

    ending: str
    choices: Sequence[Settings]


VARIANTS: dict[str, Variant] = {
    "": Variant("", LENGTHS),
    "-control": Variant("-control", SEEN),
    **{f"-ilu {w}": Variant("-ilu", [{"reading": w, **each} for each in SEEN]) for w in READINGS},
    "-sam": Variant("-sam", RADII),
    "-sam-ilu elementwise": Variant("-sam-ilu", [{**ELEMENTWISE, **each} for each in RADII]),
}


class Study(NamedTuple):
    """Where the runs are, and what all of them share."""

    out: Path
    models: Mapping[str, str]
    rates: Mapping[str, float]

    def recipe(self, method: str, variant: Variant, choice: int, seed: int) -> Recipe:
        """A variant with one of its settings."""
        given = {**study.COMMON, **study.METHODS[method], **variant.choices[choice]}
        own = {"model": self.models["learned"], "lr": self.rates[method], "seed": seed}
        return study.measured(build(f"{method}{variant.ending}", {**own, **given}))

    def tried(self, name: str, choice: int = 0) -> RunDir:
        """Where a validation run lies."""
        return RunDir(self.out / "choice" / f"{name.replace(' ', '_')}_{choice}")

    def tested(self, name: str, seed: int) -> RunDir:
        """Where a run of the table lies; of the models as they are, that of the other study."""
        if name in self.models:
            return study.place(self.out, name, seed)
        return RunDir(self.out / "readings" / f"{name.replace(' ', '_')}_seed{seed}")

    def choosing(self, method: str) -> dict[Path, Recipe]:
        """Every setting of every variant, fine-tuned on what is not reported."""
        text = Dataset("roneneldan/TinyStories:default:train", truncate=study.LONGEST)
        attacks: dict[str, Attack] = {VALIDATION: study.tuned(text, {}, 0)}
        made = {self.tried(n).path: study.nothing(m, n, 0) for n, m in self.models.items()}
        made = {path: study.measured(recipe) for path, recipe in made.items()}
        made |= {
            self.tried(f"{method}{name}", i).path: self.recipe(method, variant, i, 0)
            for name, variant in VARIANTS.items()
            for i in range(len(variant.choices))
        }
        return {path: replace(recipe, attacks=attacks) for path, recipe in made.items()}

    def testing(self, method: str, seeds: int) -> dict[Path, Recipe]:
        """The kept settings under the attacks of the table."""
        kept = {name: self.choice(method, name) for name in VARIANTS}
        return {
            self.tested(f"{method}{name}", seed).path: replace(
                self.recipe(method, variant, kept[name], seed), attacks=study.attacks(seed)
            )
            for seed in range(seeds)
            for name, variant in VARIANTS.items()
        }

    def left(self, name: str, choice: int, stage: str) -> float:
        """Selective knowledge of a setting on the validation task."""
        ends = self.tried("learned"), self.tried("oracle")
        return study.knowledge(self.tried(name, choice), *ends, stage, by=study.margin)

    def choice(self, method: str, name: str) -> int:
        """Index of the setting to keep."""
        full = f"{method}{name}"
        found = [i for i in range(len(VARIANTS[name].choices)) if self.tried(full, i).has("done")]
        after = {i: self.left(full, i, f"{VALIDATION}-end") for i in found}
        if not name:
            enough = [i for i in found if self.left(full, i, "after") < study.LEFT + SLACK]
            return min(enough or found, key=lambda i: after[i])
        far = {i: self.missing(method, full, i) for i in found}
        near = [i for i in found if far[i] == 0]
        return min(near, key=lambda i: after[i]) if near else min(far, key=lambda i: far[i])

    def missing(self, method: str, full: str, i: int) -> float:
        """How far a setting is from forgetting and keeping what the method alone does."""
        plain = self.choice(method, "")
        forgets = self.left(full, i, "after") - self.left(method, plain, "after") - SLACK
        losses = [
            study.nll(self.tried(*each), "after", "retain") for each in ((full, i), (method, plain))
        ]
        return max(0.0, forgets) + max(0.0, losses[0] - losses[1] - SLACK)

    def row(self, method: str, name: str, seeds: int) -> dict[str, Any] | None:
        """One line of the table, from the runs that have ended."""
        full, kept = f"{method}{name}", self.choice(method, name)
        found = self.numbers(full, seeds)
        if not found:
            return None
        robust = after_tuning(found)
        versus = {
            key: difference(robust, after_tuning(self.numbers(f"{method}{other}", seeds)))
            for key, other in (("base", ""), ("control", "-control"))
            if other != name
        }
        runs = [self.tested(full, seed) for seed in found]
        return {
            "model": "stories260k",
            "method": full,
            "settings": VARIANTS[name].choices[kept],
            "below_the_rule": self.missing(method, full, kept) if name else 0.0,
            "seeds": len(found),
            "commits": sorted({run.read("environment")["commit"] for run in runs}),
            **{k: mean([each[k] for each in found.values()]) for k in next(iter(found.values()))},
            "selective_after_tuning_ci": interval([-gone for gone in robust.values()]),
            "vs": {o: {"mean": mean(d), "ci_low": low(d)} for o, d in versus.items() if d},
            "runs": [run.path.name for run in runs],
        }

    def numbers(self, name: str, seeds: int) -> dict[int, dict[str, float]]:
        """What the other study reports of a run, by seed."""
        runs = {s: [self.tested(n, s) for n in (name, *self.models)] for s in range(seeds)}
        return {
            s: study.numbers(*each)
            for s, each in runs.items()
            if all(run.has("done") for run in each)
        }


def after_tuning(found: Mapping[int, Mapping[str, float]]) -> dict[int, float]:
    """Selective knowledge that is away after five fine-tunings, by seed."""
    return {seed: -each["selective_after_tuning"] for seed, each in found.items()}


COLUMNS = {
    "left": "selective",
    "after five tasks": "selective_after_tuning",
    "after GSM8K": "selective_after_gsm8k",
    "retain loss": "retain_nll",
    "task accuracy": "task_accuracy",
    "seconds": "seconds",
}


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table for readers; gains are knowledge less, with the lower end of the 95 % interval."""
    names = ("method", "setting", *COLUMNS, "less than alone", "less than the control")
    return "\n".join([f"| {' | '.join(names)} |", f"|{'---|' * len(names)}", *map(line, rows)])


def line(row: Mapping[str, Any]) -> str:
    """One row."""
    chosen = {k: v for k, v in row["settings"].items() if k in ("strength", "rho", "steps")}
    setting = ", ".join(f"{k} {v}" for k, v in chosen.items())
    cells = [f"{row[key]:.3f}" for key in COLUMNS.values()]
    versus = [row["vs"].get(key) for key in ("base", "control")]
    gains = [gain(v["mean"], v["ci_low"]) if v else "" for v in versus]
    return f"| {' | '.join((row['method'], setting, *cells, *gains))} |"


def main() -> None:
    """Choose, then test; write the table after every run of the second half."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--methods", nargs="+", default=["npo", "graddiff"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--table", type=Path, default=RESULTS)
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    out: Path = wanted.out
    models = study.both(wanted.model, out)
    rates, _ = study.tune(models["learned"], models["oracle"], out, wanted.workers)
    made = Study(out, models, rates)
    for method in wanted.methods:
        for ended in run_all(made.choosing(method), workers=wanted.workers):
            print(ended.path.name, ended.error or "done", flush=True)
        for ended in run_all(made.testing(method, wanted.seeds), workers=wanted.workers):
            print(ended.path.name, ended.error or "done", flush=True)
            write_table(made, wanted.methods, wanted.seeds, wanted.table)


def write_table(made: Study, methods: Sequence[str], seeds: int, table: Path) -> None:
    """Write the settings tried and the rows there are."""
    begun = [method for method in methods if made.tried(method).has("done")]
    tried = [
        {
            "method": f"{method}{name}", "settings": settings,
            "left": made.left(f"{method}{name}", i, "after"),
            "left_after_validation": made.left(f"{method}{name}", i, f"{VALIDATION}-end"),
            "retain_nll": study.nll(made.tried(f"{method}{name}", i), "after", "retain"),
        }
        for method in begun
        for name, variant in VARIANTS.items()
        for i, settings in enumerate(variant.choices)
        if made.tried(f"{method}{name}", i).has("done")
    ]  # fmt: skip
    found = [made.row(method, name, seeds) for method in begun for name in VARIANTS]
    rows = [row for row in found if row is not None]
    write_json(table, {
        "command": "python -m studies.tofu_readings.run ../shared/models/stories260k DIR --methods "
        + " ".join(methods),
        "environment": {**environment(), "argv": None},
        "rates": dict(made.rates), "choice": tried, "rows": rows,
    })  # fmt: skip
    write_text(table.with_suffix(".md"), to_markdown(rows) + "\n")


if __name__ == "__main__":
    main()
