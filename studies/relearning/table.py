"""The record of the study: one row per method, means over seeds with 95 % intervals."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ilu.evals.score import mean
from ilu.lab.build import Plan
from ilu.lab.corpus import CONTEXT
from ilu.lab.tasks import TASKS, VALIDATION
from ilu.models.named import NEVER
from ilu.runs.recipe import Recipe, read_recipe
from ilu.runs.report.join import with_attacks
from ilu.runs.results.forget_metric import OTHERS, UTILITY
from ilu.runs.results.run_metrics import (
    USABLE,
    Measured,
    forgotten,
    is_usable,
    read,
    score,
    worst_usable_case,
)
from ilu.runs.results.summary import forgotten_share
from ilu.runs.run_dir import RunDir
from ilu.system.provenance import environment
from studies.ilu_vs_baselines.differences import interval
from studies.relearning.cells import Cell, attacked_place, place
from studies.relearning.further import HALVES, SEARCHED

RESULTS = Path(__file__).parents[2] / "results" / "relearning.json"
RELEARN = "relearn"
Spread = list[float | None]
"""Mean over seeds and both ends of its 95 % interval, which one seed does not have."""


class Cost(NamedTuple):
    """Tokens that are trained on, and tokens that the unlearned model reads for its copy."""

    trained: float
    read: float

    @property
    def share(self) -> float:
        """Trained tokens as a share of those of pretraining."""
        return self.trained / pretraining()

    @property
    def compute_share(self) -> float:
        """The same of computation: training on a token costs three times as much as reading it."""
        return (3 * self.trained + self.read) / (3 * pretraining())


def pretraining() -> int:
    """Tokens that the lab's model is pretrained on."""
    return Plan().optim.steps * Plan().batch_size * CONTEXT


def cost(run: RunDir) -> Cost:
    """The cost of a run's trainings; those of the penalty and of adversaries are not."""
    recipe, data = read_recipe(run.file("recipe")), run.read("data")

    def tokens(of: Recipe, steps: int) -> float:
        streams = {term.on for term in of.objective.values()}
        sizes = {name: data[name]["tokens"] / data[name]["examples"] for name in streams}
        return steps * sum(recipe.data[name].batch_size * sizes[name] for name in streams)

    first, stage = tokens(recipe, len(run.rows("train"))), recipe.distillation()
    copied = tokens(stage, len(run.rows("undo"))) if stage else 0.0
    return Cost(first + copied, copied)


def numbers(run: RunDir) -> dict[str, float]:
    """What one run shows, as shares that are forgotten but for the utility and the costs."""
    tasks = {task.name: forgotten_share(run, f"{task.name}-end") for task in TASKS}
    found = cost(run)
    return {
        "forgotten": forgotten_share(run, "after"),
        "utility": run.scores("after")[UTILITY].value,
        "still_forgotten": mean(list(tasks.values())),
        **{f"after {task}": share for task, share in tasks.items()},
        f"after {VALIDATION.name}": forgotten_share(run, f"{VALIDATION.name}-end"),
        "relearned": forgotten_share(run, f"{RELEARN}-end", OTHERS),
        "cost_share": found.share,
        "compute_share": found.compute_share,
        "seconds": run.read("cost")["seconds"],
    }


class Strongest(NamedTuple):
    """The least that stays forgotten, and the attack after which that is; None if none counts."""

    forgotten: float | None
    attack: str | None


def searched(m: Measured) -> Strongest:
    """The strongest of the four settings of relearning that leave the model usable."""
    original = score(m, "before", UTILITY)
    trials = {name: forgotten(m, f"{name}-end", OTHERS) for name in (RELEARN, *SEARCHED)}
    known = {
        name: share.value
        for name, share in trials.items()
        if share and original and (utility := score(m, f"{name}-end", UTILITY))
        and is_usable(utility, original, USABLE)
    }  # fmt: skip
    best = min(known, key=lambda name: known[name], default=None)
    return Strongest(None if best is None else known[best], best)


def after_all_attacks(run: RunDir, attacked: RunDir) -> dict[str, Strongest]:
    """What the attacks of both runs leave forgotten: by halves, by search, in the worst case."""
    joined = with_attacks(read(run), read(attacked))
    halves = [forgotten_share(attacked, f"rtt-{half}-end", OTHERS) for half in HALVES]
    worst = worst_usable_case(joined)
    return {
        "rtt": Strongest(mean(halves), "rtt"),
        "searched": searched(joined),
        "worst_usable": Strongest(worst[1].value, worst[0]) if worst else Strongest(None, None),
    }


def row(out: Path, cell: Cell, seeds: int) -> dict[str, Any] | None:
    """Means over the seeds whose attacks have all succeeded; None without such a seed.

    ``attacked`` counts the seeds that have the further attacks. What these measure is None where it
    is unknown for one of those seeds.
    """
    runs = {seed: run for seed in range(seeds) if succeeded(run := RunDir(place(out, cell, seed)))}
    if not runs:
        return None
    found = [numbers(run) for run in runs.values()]
    means = {key: mean([each[key] for each in found]) for key in found[0]}
    further = {
        seed: again for seed in runs if succeeded(again := RunDir(attacked_place(out, cell, seed)))
    }
    strongest = [after_all_attacks(runs[seed], again) for seed, again in further.items()]
    return {
        "method": cell.method,
        "noise": cell.noise,
        "steps": cell.steps,
        "seeds": len(runs),
        **means,
        "relearned": spread([each["relearned"] for each in found]),
        "attacked": len(further),
        **{name: spread([each[name].forgotten for each in strongest]) for name in FURTHER},
        "strongest": {
            name: [each[name].attack for each in strongest] for name in FURTHER if name != "rtt"
        },
        "commits": commits(list(runs.values())),
        "attack_commits": commits(list(further.values())),
    }


def succeeded(run: RunDir) -> bool:
    """Whether a run is finished and all of its attacks succeeded."""
    return run.has("done") and not run.failures()


def commits(runs: Sequence[RunDir]) -> list[str]:
    """The commits at which runs were carried out."""
    return sorted({run.read("environment")["commit"] for run in runs})


def spread(values: Sequence[float | None]) -> Spread | None:
    """Mean and 95 % interval over seeds; None without values, or where one is None."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    low, high = interval(known) or (None, None)
    return [mean(known), low, high]


FURTHER = ("rtt", "searched", "worst_usable")
"""What the further attacks measure."""
COLUMNS = ("forgotten", "utility", "still_forgotten", f"after {VALIDATION.name}", "relearned",
           *FURTHER, "cost_share", "compute_share", "seconds")  # fmt: skip


def to_markdown(found: Mapping[str, Any]) -> str:
    """The record for readers, the ceiling last."""
    rows = [*found["rows"], *([found["ceiling"]] if found["ceiling"] else [])]
    head = ("method", "noise", "steps", "seeds", *COLUMNS)
    lines = [
        (
            r["method"],
            *(str(r[key] or "-") for key in head[1:4]),
            *(shown(r.get(key)) for key in COLUMNS),
        )
        for r in rows
    ]
    table = (head, ("---",) * len(head), *lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in table)


def shown(value: Any) -> str:
    """A mean, with its interval where there is one."""
    if value is None:
        return "-"
    if not isinstance(value, list):
        return f"{value:.3f}"
    middle, low, high = value
    return f"{middle:.3f}" if low is None else f"{middle:.3f} ({low:.3f} to {high:.3f})"


def record(
    out: Path, wanted: Sequence[Cell], seeds: int, before: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """The record; the model that never saw the agents is its ceiling.

    ``before``: rows of an earlier record, which stay unless this folder has runs of the same cell.
    """
    found = [each for cell in wanted if (each := row(out, cell, seeds))]
    rows = {(r["method"], r["noise"], r["steps"]): r for r in (*before, *found)}
    ceiling = rows.pop((NEVER, None, None), None)
    return {
        "command": "python -m studies.relearning.run DIR",
        "environment": {**environment(), "argv": None},
        "ceiling": ceiling,
        "rows": list(rows.values()),
    }


def recorded_rows(table: Path) -> list[dict[str, Any]]:
    """The rows of a record, the ceiling as one of them; none where there is no record yet."""
    if not table.is_file():
        return []
    known = json.loads(table.read_text(encoding="utf-8"))
    return [*([known["ceiling"]] if known["ceiling"] else []), *known["rows"]]
