"""One page from run directories: self-contained HTML, no network, the same bytes twice."""

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from ilu.files import write_text
from ilu.plots import Series, panels
from ilu.rundir import RunDir
from ilu.summary import downstream, forget_quality, model_summary
from ilu.types import STAGES

HEADLINE = {
    "forget_quality": "forget quality",
    "utility": "utility",
    "robust_accuracy": "after fine-tuning (RA)",
    "finetune_accuracy": "task accuracy (FA)",
    "relearn_forget_quality": "after relearning",
}
"""Keys of a model's summary -> what they are called in tables."""


def write_report(runs: Sequence[RunDir], path: Path) -> None:
    """Write the page; everything on it comes from the run directories."""
    import jinja2

    # Text from models and datasets is not to be trusted: everything is escaped.
    env = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    env.filters["number"] = number
    page = env.from_string(files("ilu").joinpath("report.html.j2").read_text(encoding="utf-8"))
    write_text(path, page.render(contents(runs)))


def contents(runs: Sequence[RunDir]) -> dict[str, Any]:
    """What the page shows."""
    measured = attacked(runs)
    tasks = list(dict.fromkeys(task for run in measured for task in downstream(run)))
    return {
        "labels": [label(run, runs) for run in runs],
        "headline": HEADLINE,
        "summaries": [(label(run, runs), model_summary(run)) for run in measured],
        "tasks": tasks,
        "curves": panels(quality_curves(measured, tasks), x="share of the fine-tuning done",
                         y="forget quality") if measured else "",
        "training": panels(training_curves(runs), x="step", y="value of each term", log=True)
        if training_curves(runs) else "",
        "scores": [(label(run, runs), score_rows(run)) for run in runs],
        "records": [(label(run, runs), record(run)) for run in runs],
    }  # fmt: skip


def attacked(runs: Sequence[RunDir]) -> list[RunDir]:
    """Runs that went through downstream tasks and relearning, so that they have a summary."""
    return [run for run in runs if downstream(run) and "relearn-end" in run.stages()]


def label(run: RunDir, runs: Sequence[RunDir]) -> str:
    """Name of the recipe, with its folder where several runs share it."""
    shared = sum(other.name == run.name for other in runs) > 1
    return f"{run.name} ({run.path.name})" if shared else run.name


def quality_curves(runs: Sequence[RunDir], tasks: Sequence[str]) -> dict[str, Series]:
    """Per task, forget quality of each model from before the fine-tuning to its end."""
    shares = [0.0, *STAGES.values()]
    return {
        task: {
            label(run, runs): list(zip(shares, qualities(run, task), strict=True))
            for run in runs
            if task in downstream(run)
        }
        for task in tasks
    }


def qualities(run: RunDir, task: str) -> list[float]:
    """Forget quality after unlearning and at each stage of a fine-tuning."""
    return [forget_quality(run, stage) for stage in ("after", *(f"{task}-{s}" for s in STAGES))]


def training_curves(runs: Sequence[RunDir]) -> dict[str, Series]:
    """Per run, the value of each term of the objective along training."""
    hidden = {"step", "lr", "grad_norm"}
    found: dict[str, Series] = {}
    for run in runs:
        rows = run.rows("train")
        terms = [k for k in (rows[0] if rows else {}) if k not in hidden]
        if terms:
            found[label(run, runs)] = {t: [(r["step"], r[t]) for r in rows] for t in terms}
    return found


def score_rows(run: RunDir) -> list[dict[str, Any]]:
    """Every metric at every stage, with its standard error."""
    return [
        {"stage": stage, "metric": metric, **score._asdict()}
        for stage in run.stages()
        for metric, score in run.scores(stage).items()
    ]


def record(run: RunDir) -> dict[str, str]:
    """What is needed to repeat a run."""
    names = ("recipe", "environment", "data", "done")
    return {name: json.dumps(run.read(name), indent=2, ensure_ascii=False) for name in names}


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def markdown(runs: Sequence[RunDir]) -> str:
    """The headline as a Markdown table, or every metric of runs that were not attacked."""
    measured = attacked(runs)
    return headline(measured, runs) if measured else before_and_after(runs)


def headline(measured: Sequence[RunDir], runs: Sequence[RunDir]) -> str:
    """One row per model, as in ``summary.json``."""
    names = ["model", *HEADLINE.values()]
    rows = [f"| {' | '.join(names)} |\n", f"|{'---|' * len(names)}\n"]
    for run in measured:
        found = model_summary(run)
        cells = [label(run, runs), *(number(found[key]) for key in HEADLINE)]
        rows.append(f"| {' | '.join(cells)} |\n")
    return "".join(rows)


def before_and_after(runs: Sequence[RunDir]) -> str:
    """One row per run and metric."""
    rows = ["| run | metric | before | after | ± s.e. | n |\n|---|---|---|---|---|---|\n"]
    for run in runs:
        before = run.scores("before")
        for name, after in run.scores("after").items():
            values = (
                f"{number(before[name].value)} | {number(after.value)} | {number(after.stderr)}"
            )
            rows.append(f"| {label(run, runs)} | {name} | {values} | {after.n} |\n")
    return "".join(rows)
