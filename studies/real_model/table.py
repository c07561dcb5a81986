"""The table of the study: a row for each run, and means with intervals for each way."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ilu.evals.score import mean
from ilu.recipes.free_text import GENERATED
from ilu.runs.results.forget_metric import FORGET, OTHERS, TASK, UTILITY
from ilu.runs.results.run_metrics import headline, read, with_items
from ilu.runs.run_dir import RunDir
from ilu.system.scores import STAGES
from studies.real_model.attackers import ORIGINAL
from studies.real_model.cells import HALVES, Cell
from studies.real_model.intervals import Place, Values, gains, interval


def row(cell: Cell, run: RunDir, tasks: Sequence[str]) -> dict[str, Any]:
    """What one run shows, in shares."""
    after = run.scores("after")
    curves = {
        t: [1 - run.scores(f"{t}-{s}")[FORGET].value for s in STAGES if reached(run, t, s)]
        for t in tasks
    }
    ends = {t: run.scores(f"{t}-end") for t in tasks}
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
        "relearned": mean(unseen(run, tasks)) if has_halves(run) else None,
        "worst_usable": None if usable is None else usable.value,
        "cosines": run.read("vectors") if run.has("vectors") else {},
        "seconds": run.read("cost")["seconds"],
        "peak_memory_bytes": run.read("cost")["peak_memory_bytes"],
        "run": run.path.name,
        "commit": run.read("environment")["commit"],
    }


def reached(run: RunDir, task: str, stage: str) -> bool:
    """Whether an attack was measured at a stage: with `only_end` the end alone."""
    return run.has(f"scores/{task}-{stage}")


def still_forgotten(run: RunDir, tasks: Sequence[str]) -> list[float]:
    """For each fact the share of the fine-tunings at whose end it is still forgotten."""
    ends = [with_items(run, f"{task}-end")[FORGET].items for task in tasks]
    return [mean([1 - float(x or 0) for x in each]) for each in zip(*ends, strict=True)]


def has_halves(run: RunDir) -> bool:
    """Whether the model was trained again on half of the facts."""
    return all(reached(run, half, "end") for half in HALVES)


def unseen(run: RunDir, tasks: Sequence[str]) -> list[float]:
    """For each fact whether it is still forgotten after training on the other half of them."""
    both = [with_items(run, f"{half}-end")[OTHERS].items for half in HALVES]
    return [1 - float(x or 0) for items in both for x in items]


def answered(run: RunDir, tasks: Sequence[str]) -> list[float]:
    """For each kept fact that was not trained on, whether the greedy reply is right."""
    return [float(x or 0) for x in with_items(run, "after")[GENERATED].items]


def summary(runs: Mapping[Cell, RunDir], tasks: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each way, with 95 % intervals over seeds and facts."""

    def values(family: str, way: str, of: Callable[[RunDir, Sequence[str]], list[float]]) -> Values:
        chosen = {c: r for c, r in runs.items() if (c.family, c.way) == (family, way)}
        return {Place(c.topic, c.seed): of(r, tasks) for c, r in chosen.items()}

    def over(family: str, way: str, of: Callable[..., list[float]]) -> dict[str, list[float]]:
        own = values(family, way, of)
        others = {other: values(family, other, of) for other in ("alone", "control")}
        paired = {name: gains(own, theirs) for name, theirs in others.items() if name != way}
        return {name: interval(each) for name, each in paired.items() if each}

    found: list[dict[str, Any]] = []
    for family, way in dict.fromkeys((c.family, c.way) for c in runs):
        own = values(family, way, still_forgotten)
        made = {"family": family, "way": way, "n": len(own), "still_forgotten": interval(own)}
        made |= {f"over_{k}": v for k, v in over(family, way, still_forgotten).items()}
        if family != ORIGINAL:
            made |= {"relearned": interval(values(family, way, unseen))}
            made |= {f"relearned_over_{k}": v for k, v in over(family, way, unseen).items()}
        made |= {"utility_generated": interval(values(family, way, answered))}
        found.append(made)
    return found
