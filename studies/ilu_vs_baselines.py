"""Does forgetting survive unrelated fine-tuning, and what of ILU helps? Against tuned baselines.

    python studies/ilu_vs_baselines.py DIR [--seeds 3] [--workers 1] [--methods rmu npo ...]

First every way (studies/groups.py has them) is tried with each of its settings on the lab's
model with seed 0, and fine-tuned on the validation task `next`, which no result is reported on. Of
the plain method the setting is kept that has most forget quality along that fine-tuning and utility
before it, added up. Of the others it is the one with the highest forget quality along the
fine-tuning among those whose forget quality and utility before it are at most .05 and .03 (.02 in
the group `equal`) below the plain method's; if there is none, the one nearest to that, and its row
says how far below. Then the kept settings, with new seeds for data and steering vector, are
fine-tuned on the six test tasks and relearn. The same command again does only what is missing; the
table is results/ilu_vs_baselines.json and .md, where rows that DIR has no runs of are kept with the
commits of theirs; gains are over rows of the same group. Attacked weights are kept, and the
original model is attacked alike: studies/angles.py and studies/recovery.py read them.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from groups import RMU, WAYS, compared
from ways import IMPLIED, QUESTIONS, Settings

from ilu.environment import environment
from ilu.files import write_json, write_text
from ilu.forgetting import UTILITY
from ilu.lab.tasks import VALIDATION
from ilu.pool import run_all
from ilu.recipe import Recipe
from ilu.recipes import lab
from ilu.rundir import RunDir
from ilu.scores import mean, mean_and_error
from ilu.significance import Interval, student
from ilu.summary import forget_quality, model_summary
from ilu.train import Optim
from ilu.types import STAGES

RESULTS = Path(__file__).parent.parent / "results" / "ilu_vs_baselines.json"
TUNE, RELEARN = 60, 30
ORIGINAL = "original"


def choosing(out: Path, group: str) -> dict[Path, Recipe]:
    """Every setting of every way, fine-tuned on the validation task."""
    attacks = {VALIDATION.name: lab.finetune(VALIDATION.name, TUNE)}
    return {
        chosen_path(out, name, i): replace(way.built(i, 0), attacks=attacks)
        for name, way in WAYS[group].items()
        for i in range(len(way.choices))
    }


def chosen_path(out: Path, name: str, choice: int) -> Path:
    """Where a validation run lies."""
    return out / "choice" / f"{name.replace(' ', '_')}_{choice}"


def testing(out: Path, group: str, seeds: int) -> dict[Path, Recipe]:
    """The kept settings under the attacks of the table; seed 0 has been chosen on."""
    kept = {name: choice(out, group, name) for name in WAYS[group]}
    made = {
        (name, seed): WAYS[group][name].built(kept[name], seed)
        for seed in range(1, seeds + 1)
        for name in kept
    }
    made |= {(ORIGINAL, seed): original(seed) for seed in range(1, seeds + 1)}
    return {
        test_path(out, name, seed): replace(
            each, attacks=lab.attacks(TUNE, RELEARN, QUESTIONS, seed), keep_attacked=True
        )
        for (name, seed), each in made.items()
    }


def original(seed: int) -> Recipe:
    """Nothing is forgotten: where the task vectors of the others begin."""
    nothing = Optim(lr=1e-3, steps=0)
    made = RMU.built(0, seed)
    return replace(made, name=ORIGINAL, objective={}, data={}, optim=nothing)


def test_path(out: Path, name: str, seed: int) -> Path:
    """Where a run of the table lies."""
    return out / "test" / f"{name.replace(' ', '_')}_seed{seed}"


class Validated(NamedTuple):
    """A setting on the validation task."""

    forget_quality: float
    utility: float
    along: float


def validated(out: Path, name: str, i: int) -> Validated | None:
    """What a setting gave; None where training failed or has not ended."""
    run = RunDir(chosen_path(out, name, i))
    if not run.has("done"):
        return None
    along = mean([forget_quality(run, f"{VALIDATION.name}-{stage}") for stage in STAGES])
    return Validated(forget_quality(run, "after"), run.scores("after")[UTILITY].value, along)


def choice(out: Path, group: str, name: str) -> int:
    """Index of the setting to keep, by the rule above."""
    found = {i: validated(out, name, i) for i in range(len(WAYS[group][name].choices))}
    valid = {i: v for i, v in found.items() if v is not None}
    if name == compared(group).base:
        return max(valid, key=lambda i: valid[i].along + valid[i].utility)
    far = {i: missing(out, group, v) for i, v in valid.items()}
    near = {i: v for i, v in valid.items() if far[i] == 0}
    if near:
        return max(near, key=lambda i: near[i].along)
    return min(far, key=lambda i: far[i])


def missing(out: Path, group: str, v: Validated) -> float:
    """How far a setting is from forgetting and keeping what the plain method does."""
    base, _, slack = compared(group)
    plain = validated(out, base, choice(out, group, base))
    assert plain is not None
    forgets = max(0.0, plain.forget_quality - 0.05 - v.forget_quality)
    return forgets + max(0.0, plain.utility - slack - v.utility)


def row(out: Path, group: str, name: str, seeds: int) -> dict[str, Any] | None:
    """One line of the table, from the runs that have ended; None before there is one."""
    every = {s: RunDir(test_path(out, name, s)) for s in range(1, seeds + 1)}
    runs = {s: run for s, run in every.items() if run.has("done")}
    if not runs:
        return None
    way, kept = WAYS[group][name], choice(out, group, name)
    at_choice = validated(out, name, kept)
    assert at_choice is not None
    found = {s: model_summary(run) for s, run in runs.items()}
    robust = {s: summary["robust_accuracy"] for s, summary in found.items()}
    beside = compared(group)
    versus = {
        other: difference(robust, robust_of(out, other, runs))
        for other in WAYS[group]
        if other != name
    }
    plain, control = (versus.get(o, []) for o in (way.base or beside.base, beside.control))
    return {
        "model": "lab",
        "group": group,
        "method": name,
        "reading": way.reading,
        "settings": way.choices[kept],
        "below_the_rule": missing(out, group, at_choice),
        "seeds": len(runs),
        "commits": sorted({run.read("environment")["commit"] for run in runs.values()}),
        "fq_mean": over(found, "forget_quality"),
        "utility_mean": over(found, "utility"),
        "ra_mean": mean(list(robust.values())),
        "ra_ci": interval(list(robust.values())),
        "ra_other_tasks_mean": mean([mean(apart(each)) for each in found.values()]),
        "fa_mean": over(found, "finetune_accuracy"),
        "relearn_mean": over(found, "relearn_forget_quality"),
        "unlearn_seconds": mean([run.read("cost")["seconds"] for run in runs.values()]),
        "peak_memory_mib": mean(
            [run.read("cost")["peak_memory_bytes"] / 2**20 for run in runs.values()]
        ),
        "delta_ra_vs_base": mean(plain) if plain else None,
        "delta_ra_ci_low": low(plain),
        "delta_ra_vs_control": mean(control) if control else None,
        "delta_ra_vs_control_ci_low": low(control),
        "delta_ra_vs": {o: {"mean": mean(d), "ci_low": low(d)} for o, d in versus.items() if d},
        "runs": [run.path.name for run in runs.values()],
    }


def apart(summary: Mapping[str, Any]) -> list[float]:
    """Forget quality along each task that is not the environment of most ways, the sums."""
    return [mean(t["forget_quality"]) for name, t in summary["tasks"].items() if name != "sums"]


def over(found: Mapping[int, Mapping[str, Any]], key: str) -> float:
    """Mean over the seeds."""
    return mean([summary[key] for summary in found.values()])


def robust_of(out: Path, name: str, seeds: Mapping[int, Any]) -> dict[int, float]:
    """Robust accuracy of another way, by seed."""
    runs = {s: RunDir(test_path(out, name, s)) for s in seeds}
    return {s: model_summary(r)["robust_accuracy"] for s, r in runs.items() if r.has("done")}


def difference(own: Mapping[int, float], other: Mapping[int, float]) -> list[float]:
    """Seed by seed."""
    return [own[s] - other[s] for s in own if s in other]


def interval(values: Sequence[float]) -> Interval | None:
    """95 % interval of the mean over seeds, by Student's t; None for one seed."""
    if len(values) < 2:
        return None
    found = mean_and_error(values)
    half = student(len(values) - 1) * found["stderr"]
    return found["mean"] - half, found["mean"] + half


def low(values: Sequence[float]) -> float | None:
    """Lower end of that interval."""
    found = interval(values)
    return None if found is None else found[0]


def write_table(out: Path, groups: Sequence[str], seeds: int, table: Path) -> None:
    """Write what there is beside what the table has of others: settings tried, and the rows."""
    begun = [group for group in groups if validated(out, compared(group).base, 0)]
    tried = [
        {"group": group, "method": name, "settings": settings, **v._asdict()}
        for group in begun
        for name, way in WAYS[group].items()
        for i, settings in enumerate(way.choices)
        if (v := validated(out, name, i)) is not None
    ]
    found = [row(out, group, name, seeds) for group in begun for name in WAYS[group]]
    rows = [r for r in found if r is not None]
    new = {of_group(e) for e in (*rows, *tried)}
    old = json.loads(table.read_text()) if table.exists() else {"choice": [], "rows": []}
    for entry in (*old["choice"], *old["rows"]):  # some were made before groups had names
        entry.setdefault("group", entry["method"].split("-")[0])
    kept = {key: [e for e in old[key] if of_group(e) not in new] for key in ("choice", "rows")}
    every = [r for group in WAYS for r in (*kept["rows"], *rows) if r["group"] == group]
    write_json(table, {
        "command": f"python studies/ilu_vs_baselines.py DIR --methods {' '.join(WAYS)}",
        "environment": {**environment(), "argv": None},
        "choice": kept["choice"] + tried,
        "rows": every,
    })  # fmt: skip
    write_text(table.with_suffix(".md"), "\n".join(map(to_markdown, grouped(every))))


def of_group(entry: Mapping[str, Any]) -> tuple[str, str]:
    """What tells a row from others: the same way may be in several groups, beside others."""
    return entry["group"], entry["method"]


def grouped(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The rows of each group."""
    return [[r for r in rows if r["group"] == g] for g in dict.fromkeys(r["group"] for r in rows)]


COLUMNS = {
    "FQ": "fq_mean",
    "utility": "utility_mean",
    "RA": "ra_mean",
    "RA but sums": "ra_other_tasks_mean",
    "FA": "fa_mean",
    "relearned": "relearn_mean",
}
GAINS = {
    "RA over the method": ("delta_ra_vs_base", "delta_ra_ci_low"),
    "RA over the control": ("delta_ra_vs_control", "delta_ra_vs_control_ci_low"),
}
"""A mean difference over seeds, and in brackets the lower end of its 95 % interval."""


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table for readers."""
    names = (rows[0]["group"], "setting", *COLUMNS, *GAINS, "seconds", "MiB")
    return (
        "\n".join([f"| {' | '.join(names)} |", f"|{'---|' * len(names)}", *map(line, rows)]) + "\n"
    )


def line(r: Mapping[str, Any]) -> str:
    """One row."""
    setting = ", ".join(f"{k} {v}" for k, v in shown(r).items())
    cells = [f"{r[key]:.3f}" if key in r else "" for key in COLUMNS.values()]
    gains = [gain(r[mean_of], r[low_of]) for mean_of, low_of in GAINS.values()]
    cost = (
        f"{r['unlearn_seconds']:.0f}",
        f"{r['peak_memory_mib']:.0f}" if "peak_memory_mib" in r else "",
    )
    return f"| {' | '.join((r['method'], setting, *cells, *gains, *cost))} |"


def shown(r: Mapping[str, Any]) -> Settings:
    """The settings of a row that its name does not say; a strength in the units that it has."""
    unit = " of the forget term" if r["settings"].get("scale_free") else ""
    own = {k: v for k, v in r["settings"].items() if k not in IMPLIED}
    return {k: f"{v:g}{unit}" if k == "strength" else v for k, v in own.items()}


def gain(value: float | None, lower: float | None) -> str:
    """``+0.107 (+0.055)``, or nothing where there is nothing to compare with."""
    if value is None:
        return ""
    return f"{value:+.3f}" if lower is None else f"{value:+.3f} ({lower:+.3f})"


def main() -> None:
    """Choose, then test; write the table after every run of the second half."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", type=Path, default=RESULTS)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--methods", nargs="+", default=["rmu"], choices=list(WAYS))
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    for group in wanted.methods:
        for ended in run_all(choosing(wanted.out, group), workers=wanted.workers):
            print(ended.path.name, ended.error or "done", flush=True)
        for ended in run_all(testing(wanted.out, group, wanted.seeds), workers=wanted.workers):
            print(ended.path.name, ended.error or "done", flush=True)
            write_table(wanted.out, wanted.methods, wanted.seeds, wanted.table)


if __name__ == "__main__":
    main()
