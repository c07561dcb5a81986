"""The main commands as Python functions: ``ilu.unlearn`` and so on."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from ilu.data.inputs import check_files
from ilu.evals.cached_suite import evaluate as evaluate_suite
from ilu.models.load import load_model
from ilu.recipes.attacks import Attacker, attacked
from ilu.recipes.build import build
from ilu.recipes.settings import AttackSettings
from ilu.recipes.suite import suite_of
from ilu.recipes.suite_request import SuiteRequest
from ilu.runs.report.formats import write_report
from ilu.runs.run import Options, run
from ilu.runs.run_dir import RunDir
from ilu.system.scores import Score
from ilu.training.fit import Optim

Model = str | Path | RunDir
"""A folder, a hub id, a built-in name such as ``lab``, or a run, whose model is used."""


def unlearn(
    recipe: str,
    *,
    model: Model,
    forget: str | Sequence[str] = (),
    retain: str | None = None,
    environment: str | Sequence[str] = (),
    steps: int | None = None,
    lr: float | None = None,
    out: str | Path | None = None,
    settings: Mapping[str, Any] = {},
    options: Options = Options(),
) -> RunDir:
    """Unlearn ``forget`` from ``model`` by ``recipe`` and return the run with scores and model.

    ``recipe``: a method with its endings, such as ``"npo"`` or ``"rmu-ilu"``. ``forget``,
    ``retain``, ``environment``: files or dataset names; the model ``lab`` has its own data.
    ``settings``: any other setting of the recipe, such as ``{"beta": 0.1}``. A setting that is left
    out has the recipe's default. ``out``: a new folder; ``runs/RECIPE`` if left out, with a number
    if that exists. Settings that are chosen for the model are reported on standard error, or to
    ``options.on_note``. Raises ValueError for a wrong setting before it loads the model.
    """
    optional = {"forget": forget, "retain": retain, "environment": environment}
    named = {k: v for k, v in optional.items() if v} | {"model": model_name(model)}
    numbers = {k: v for k, v in {"steps": steps, "lr": lr}.items() if v is not None}
    if twice := settings.keys() & {*named, *numbers}:
        raise ValueError(f"`{min(twice)}` is given twice: as an argument and in `settings`")
    made = build(recipe, {**named, **numbers, **settings})
    return run(made, new_folder(out, recipe), with_notes(options))


def evaluate(
    model: Model,
    suite: str = "likelihood",
    *,
    data: str | None = None,
    limit: int | None = None,
    request: SuiteRequest = SuiteRequest(),
    device: str = "cpu",
) -> Mapping[str, Score]:
    """Measure ``model`` by ``suite`` and return its scores by metric.

    ``data``, ``limit``: as in ``request``, which has all settings of ``ilu evaluate``.
    """
    request = replace(
        request, data=data or request.data, limit=request.limit if limit is None else limit
    )
    measured = suite_of(suite, request)
    check_files(measured)
    return evaluate_suite(measured, load_model(model_name(model), device=device), None).scores


def attack(
    model: Model,
    attacks: str | Sequence[str],
    *,
    suite: str | None = None,
    request: SuiteRequest = SuiteRequest(),
    steps: int = 100,
    lr: float = 1e-5,
    out: str | Path | None = None,
    settings: AttackSettings = AttackSettings(),
    options: Options = Options(),
) -> RunDir:
    """Attack ``model`` and return the run, which has the scores before, during and after.

    ``attacks``: tasks or attacks by name, such as ``"mood"``, ``"relearn:20"``, ``"quantise:4"``,
    each from the same weights. ``suite``: what is measured besides the attacker's own task.
    ``out``: a new folder; ``runs/attack`` if left out, with a number if that exists.
    """
    names = (attacks,) if isinstance(attacks, str) else tuple(attacks)
    metrics = {suite: suite_of(suite, request)} if suite else {}
    by = Attacker(optim=Optim(lr=lr, steps=steps), settings=settings)
    recipe = attacked(model_name(model), names, by, metrics, {}, keep=False)
    return run(recipe, new_folder(out, "attack"), with_notes(options))


def with_notes(options: Options) -> Options:
    """The options with notes on standard error, unless the caller has a function for them."""
    return options if options.on_note else replace(options, on_note=to_stderr)


def to_stderr(note: str) -> None:
    """Write a note on standard error, as the command line does on the terminal."""
    sys.stderr.write(f"{note}\n")


def report(runs: RunDir | Path | str | Sequence[RunDir | Path | str], out: str | Path) -> Path:
    """Write a report on runs to the file ``out`` and return its path; its ending is the format."""
    several = (runs,) if isinstance(runs, RunDir | Path | str) else tuple(runs)
    paths = [each.path if isinstance(each, RunDir) else Path(each) for each in several]
    write_report(paths, Path(out))
    return Path(out)


def load_run(path: str | Path) -> RunDir:
    """Open a finished run for reading; ValueError if it is none or not finished."""
    return RunDir.finished(Path(path))


def model_name(model: Model) -> str:
    """The model by the name that recipes record."""
    return model.model if isinstance(model, RunDir) else str(model)


def new_folder(out: str | Path | None, name: str) -> Path:
    """``out``, or the first of ``runs/name``, ``runs/name-2``, ... that does not exist."""
    if out is not None:
        return Path(out)
    tries = (Path("runs", name if i == 1 else f"{name}-{i}") for i in count(1))
    return next(path for path in tries if not path.exists())
