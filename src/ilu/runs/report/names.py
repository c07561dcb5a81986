"""Names of the rows of a report."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ilu.runs.report.escape import printable
from ilu.runs.results.run_metrics import Measured

ORIGINAL = "original"
"""Recipe of a run that only measures the original model."""
MODEL_FOLDER = "model"
"""Folder of a run with the model that it made."""


def titles(groups: Sequence[Sequence[Measured]]) -> list[str]:
    """Name of each group of runs, with a folder where several would share it."""
    firsts = [group[0] for group in groups]
    unlearned = {model_of(m) for m in firsts if m.recipe["objective"]}
    names = [title(m, unlearned) for m in firsts]
    folders = [common_name([m.run.path.name for m in group]) for group in groups]
    paths = from_shared_folder([m.run.path for m in firsts])
    forms = [
        names,
        [f"{name} ({folder})" for name, folder in zip(names, folders, strict=True)],
        [f"{name} ({path})" for name, path in zip(names, paths, strict=True)],
        [f"{name} ({path}) #{i}" for i, (name, path) in enumerate(zip(names, paths, strict=True))],
    ]
    return [
        printable(next(form[i] for form in forms if form.count(form[i]) == 1 or form is forms[-1]))
        for i in range(len(groups))
    ]


def title(m: Measured, unlearned: set[str]) -> str:
    """Name of a run: its recipe's; of one that unlearned nothing, that of its model.

    ``unlearned`` are the original models of the other runs.
    """
    recipe, model = str(m.recipe["name"]), model_of(m)
    if m.recipe["objective"] or not model or Path(model).name == MODEL_FOLDER:
        return recipe
    original = recipe == ORIGINAL or model in unlearned or not unlearned
    return f"{ORIGINAL}: {short(model)}" if original else short(model)


def model_of(m: Measured) -> str:
    """The model of a recipe as the user named it; empty in records without one."""
    return str(m.recipe.get("model") or "")


def short(model: str) -> str:
    """A hub id as it is, a path reduced to its last part."""
    on_hub = model.count("/") == 1 and not model.startswith(("/", "."))
    return model if on_hub else Path(model).name


def known_row(rows: Mapping[str, Measured], wanted: str) -> str:
    """The label of the row that ``wanted`` names: by label, by its recipe, or an original model."""
    if wanted in rows:
        return wanted
    names = {k: [m.recipe["name"]] for k, m in rows.items()}
    models = {k: [short(model_of(m))] for k, m in rows.items() if not m.recipe["objective"]}
    named = [k for k in rows if wanted in [*names[k], *models.get(k, [])]]
    if len(named) != 1:
        raise ValueError(f"`against` {wanted}: no such model here; one of {', '.join(rows)}")
    return named[0]


def from_shared_folder(paths: Sequence[Path]) -> list[str]:
    """Paths without the folders that all of them share."""
    absolute = [os.path.abspath(path) for path in paths]
    shared = os.path.commonpath([os.path.dirname(path) for path in absolute]) if absolute else ""
    return [os.path.relpath(path, shared) for path in absolute]


def common_name(names: Sequence[str]) -> str:
    """The parts that folder names share: npo-lr=1 for npo-lr=1-seed=0 and npo-lr=1-seed=1."""
    columns = zip(*(re.split(r"([-_])", name) for name in names), strict=False)
    shared = "".join(parts[0] for parts in columns if len(set(parts)) == 1)
    return re.sub(r"[-_]{2,}", "-", shared).strip("-_") or names[0]
