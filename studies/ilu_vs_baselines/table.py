"""The table of this study, from its run directories."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ilu.evals.score import mean
from ilu.runs.results.summary import model_summary
from ilu.runs.run_dir import RunDir
from ilu.system.atomic import write_json, write_text
from ilu.system.provenance import environment
from studies.ilu_vs_baselines.choice import choice, missing, test_path, validated
from studies.ilu_vs_baselines.differences import gain, interval, low
from studies.ilu_vs_baselines.groups import VARIANTS, compared
from studies.ilu_vs_baselines.variants import IMPLIED, Settings

ORIGINAL = "original"
"""The model that forgot nothing."""


def rows_of(out: Path, group: str, seeds: int) -> list[dict[str, Any]]:
    """A line for the model that forgot nothing and for every variant, if they have runs."""
    names = (ORIGINAL, *VARIANTS[group])
    every = {name: found for name in names if (found := of_seeds(out, name, seeds))}
    return [row(out, group, name, every) for name in every]


def row(out: Path, group: str, name: str, every: Mapping[str, "Values"]) -> dict[str, Any]:
    """One line of the table."""
    variant, reference = VARIANTS[group].get(name), compared(group)
    base = variant.base if variant and variant.base else reference.over
    control = reference.control
    versus = {o: gains(every[name], v) for o, v in every.items() if variant and o != name}
    over_base, over_control = (versus.get(o) or dict.fromkeys(GAIN) for o in (base, control))
    return {
        **measured(out, group, name, every[name]),
        "reading": variant.reading if variant else None,
        **(kept(out, group, name) if variant else {"settings": {}, "below_the_rule": 0.0}),
        "base": base if versus.get(base) else None,
        "control": control if versus.get(control) else None,
        "gain_over_base": over_base["mean"],
        "gain_over_base_ci_low": over_base["ci_low"],
        "gain_over_control": over_control["mean"],
        "gain_over_control_ci_low": over_control["ci_low"],
        "gain_over": {o: found for o, found in versus.items() if found},
    }


def kept(out: Path, group: str, name: str) -> dict[str, Any]:
    """The settings that were chosen, and how far they are from what the rule asks for."""
    i = choice(out, group, name)
    at_choice = validated(out, name, i)
    assert at_choice is not None
    far = missing(out, group, at_choice)
    return {"settings": VARIANTS[group][name].choices[i], "below_the_rule": far}


Values = Mapping[int, Mapping[str, float]]
"""Seed -> what its run showed."""


def of_seeds(out: Path, name: str, seeds: int) -> Values:
    """The runs of a variant that have ended."""
    runs = {s: RunDir(test_path(out, name, s)) for s in range(1, seeds + 1)}
    return {s: numbers(model_summary(run)) for s, run in runs.items() if run.has("done")}


def numbers(summary: Mapping[str, Any]) -> dict[str, float]:
    """What one run shows; other tasks are those that are not the environment of most variants."""
    others = [t["forgotten"] for name, t in summary["tasks"].items() if name != "sums"]
    return {
        "forgotten": summary["forgotten"],
        "utility": summary["utility"],
        "still_forgotten": summary["still_forgotten"],
        "still_forgotten_other_tasks": mean([mean(along) for along in others]),
        "task_accuracy": summary["task_accuracy"],
        "after_relearning": summary["after_relearning"],
    }


def measured(out: Path, group: str, name: str, values: Values) -> dict[str, Any]:
    """Means over the runs of a variant."""
    runs = [RunDir(test_path(out, name, seed)) for seed in values]
    each = {key: [found[key] for found in values.values()] for key in next(iter(values.values()))}
    costs = [run.read("cost") for run in runs]
    return {
        "model": "lab",
        "group": group,
        "method": name,
        "seeds": len(runs),
        "commits": sorted({run.read("environment")["commit"] for run in runs}),
        **{f"{key}_mean": mean(found) for key, found in each.items()},
        "still_forgotten_ci": interval(each["still_forgotten"]),
        "by_seed": each,
        "unlearn_seconds": mean([cost["seconds"] for cost in costs]),
        "peak_memory_mib": mean([cost["peak_memory_bytes"] / 2**20 for cost in costs]),
        "runs": [run.path.name for run in runs],
    }


GAIN = ("mean", "ci_low", "other_tasks_mean", "other_tasks_ci_low")


def gains(own: Values, other: Values) -> dict[str, float | None]:
    """``still_forgotten`` less that of another variant, seed by seed.

    Empty without a common seed.
    """
    both = [s for s in own if s in other]
    if not both:
        return {}
    keys = "still_forgotten", "still_forgotten_other_tasks"
    every, apart = ([own[s][key] - other[s][key] for s in both] for key in keys)
    return dict(zip(GAIN, (mean(every), low(every), mean(apart), low(apart)), strict=True))


def write_table(out: Path, groups: Sequence[str], seeds: int, table: Path) -> None:
    """Write the groups that have runs; groups without runs keep their rows of the older table."""
    begun = [group for group in groups if validated(out, compared(group).base, 0)]
    tried = [
        {"group": group, "method": name, "settings": settings, **v._asdict()}
        for group in begun
        for name, variant in VARIANTS[group].items()
        for i, settings in enumerate(variant.choices)
        if (v := validated(out, name, i)) is not None
    ]
    rows = [each for group in begun for each in rows_of(out, group, seeds)]
    old = json.loads(table.read_text()) if table.exists() else {"choice": [], "rows": []}
    for entry in (*old["choice"], *old["rows"]):  # some were made before groups had names
        entry.setdefault("group", entry["method"].split("-")[0])
    left = {key: [e for e in old[key] if e["group"] not in begun] for key in ("choice", "rows")}
    every = [r for group in VARIANTS for r in (*left["rows"], *rows) if r["group"] == group]
    write_json(table, {
        "command": f"python -m studies.ilu_vs_baselines.run DIR --methods {' '.join(VARIANTS)}",
        "environment": {**environment(), "argv": None},
        "choice": left["choice"] + tried,
        "rows": every,
    })  # fmt: skip
    write_text(table.with_suffix(".md"), "\n".join(map(to_markdown, grouped(every))))


def grouped(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The rows of each group."""
    return [[r for r in rows if r["group"] == g] for g in dict.fromkeys(r["group"] for r in rows)]


OTHERS = "without sums"
COLUMNS = {
    "forgotten": "forgotten_mean",
    "below the rule": "below_the_rule",
    "utility": "utility_mean",
    "still forgotten": "still_forgotten_mean",
    OTHERS: "still_forgotten_other_tasks_mean",
    "task accuracy": "task_accuracy_mean",
    "after relearning": "after_relearning_mean",
}
GAINS = {"over the method": "base", "over the control": "control"}
"""Mean difference of ``still_forgotten`` over seeds, with the lower end of its 95 % interval."""


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table for readers."""
    gained = [column for name in GAINS for column in (name, OTHERS)]
    names = (rows[0]["group"], "setting", *COLUMNS, *gained, "seconds", "MiB")
    return (
        "\n".join([f"| {' | '.join(names)} |", f"|{'---|' * len(names)}", *map(line, rows)]) + "\n"
    )


def line(r: Mapping[str, Any]) -> str:
    """One row."""
    setting = ", ".join(f"{k} {v}" for k, v in shown(r).items())
    cells = [f"{r[key]:.3f}" if key in r else "" for key in COLUMNS.values()]
    cost = (
        f"{r['unlearn_seconds']:.0f}",
        f"{r['peak_memory_mib']:.0f}" if "peak_memory_mib" in r else "",
    )
    gained = [cell for key in GAINS.values() for cell in gained_over(r, key)]
    return f"| {' | '.join((r['method'], setting, *cells, *gained, *cost))} |"


def gained_over(r: Mapping[str, Any], key: str) -> tuple[str, str]:
    """The gain over the base or the control, on all tasks and on the others."""
    if "by_seed" not in r:  # of a group whose runs are gone
        return gain(r[f"gain_over_{key}"], r[f"gain_over_{key}_ci_low"]), ""
    found = r["gain_over"].get(r[key], dict.fromkeys(GAIN))
    every, every_low, apart, apart_low = (found[name] for name in GAIN)
    return gain(every, every_low), gain(apart, apart_low)


def shown(r: Mapping[str, Any]) -> Settings:
    """The settings of a row that its name does not say; a strength in the units that it has."""
    unit = " of the forget term" if r["settings"].get("scale_free") else ""
    own = {k: v for k, v in r["settings"].items() if k not in IMPLIED}
    return {k: f"{v:g}{unit}" if k == "strength" else v for k, v in own.items()}
