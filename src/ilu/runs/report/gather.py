"""Which runs can be reported, and why the others cannot: none is left out in silence."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ilu.runs.report.join import join
from ilu.runs.report.landscape import landscape_figures, similarity_figures
from ilu.runs.report.mask_agreement import agreements
from ilu.runs.report.questions import after_attacks, came_back, recovery
from ilu.runs.report.records import before_and_after, cosines, masks, repeats
from ilu.runs.report.table import row
from ilu.runs.results.run_metrics import Measured, numbers, read
from ilu.runs.run_dir import RunDir


class Broken(NamedTuple):
    """A run, or an attack of one, that is not in the tables; ``training`` is how far it came."""

    place: Path
    state: str
    training: Sequence[Mapping[str, float]] = ()


def gather(paths: Sequence[Path]) -> tuple[list[Measured], list[Broken]]:
    """Read all runs; a path may also be a folder of runs."""
    runs, broken = list[Measured](), list[Broken]()
    for path in dict.fromkeys(run for each in paths for run in expand(each)):
        try:
            found = look(path)
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            found = Broken(path, f"cannot be read: {type(error).__name__}: {error}")
        if isinstance(found, Broken):
            broken.append(found)
        else:
            runs.append(found)
            broken += incomplete(found)
    return join(runs), broken


def expand(path: Path) -> list[Path]:
    """A run directory itself, or those below a folder."""
    if found := list(find(path)):
        return found
    raise ValueError(
        f"{path} is not a run directory: it has no recipe.json, nor has a folder in it"
    )


def find(root: Path) -> Iterator[Path]:
    """Run directories below ``root``, also half-made ones; links are not followed."""
    for folder, names, files in os.walk(root):
        names.sort()
        path = Path(folder)
        if {"recipe.json", "failed.json"} & set(files) or path.suffix == ".partial":
            names.clear()  # a run holds no other runs
            yield path


def look(path: Path) -> Measured | Broken:
    """Read a finished run, or say what state it is in."""
    run = RunDir(path)
    if run.has("done"):
        return tried(read(run))
    if run.has("failed"):
        return Broken(path, f"failed: {run.read('failed')['error']}", numbers(run.rows("train")))
    if not run.has("recipe"):
        return Broken(path, "was stopped before its first measurement was complete")
    return Broken(path, progress(run.read("recipe"), run), numbers(run.rows("train")))


def tried(m: Measured) -> Measured:
    """Ask a run for all that a report will ask, so that a broken one fails here and alone."""
    alone = [row(m.run.path.name, [m])]
    for ask in (after_attacks, came_back, recovery, cosines, masks, agreements):
        ask(alone)
    for ask in (before_and_after, repeats):
        ask(alone)
    landscape_figures(alone)
    similarity_figures(alone)
    return m


def progress(recipe: Any, run: RunDir) -> str:
    """How far an unfinished run is."""
    stages = run.stages()
    attacks = recipe["attacks"]
    over = sum(f"{a}-end" in stages for a in attacks)
    steps = len(numbers(run.rows("train")))
    parts = [f"unfinished: {steps} of {recipe['optim']['steps']} steps of unlearning"]
    if "after" in stages:
        parts.append(f"{over} of {len(attacks)} attacks")
    return ", ".join(parts)


def incomplete(m: Measured) -> list[Broken]:
    """Attacks that a finished run was to carry out and that failed or left no score."""
    failed = m.run.failures()
    missing = [a for a in m.recipe["attacks"] if a not in (*m.attacks, *failed)]
    told = [f"attack {a!r} failed: {why}" for a, why in failed.items()]
    told += [f"attack {a!r} left no score" for a in missing]
    return [Broken(m.run.path, each) for each in told]
