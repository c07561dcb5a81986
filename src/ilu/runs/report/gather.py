"""Find and read run directories; list the ones that cannot be reported, with the reason."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ilu.runs.report.join import join
from ilu.runs.report.landscape import landscape_figures, similarity_figures
from ilu.runs.report.mask_agreement import agreements
from ilu.runs.report.questions import after_attacks, recovered, recovery
from ilu.runs.report.records import before_and_after, cosines, masks, repeats
from ilu.runs.report.samples import samples
from ilu.runs.report.table import row
from ilu.runs.results.run_metrics import Measured, numbers, read
from ilu.runs.run_dir import DISTILLED, RunDir


class Broken(NamedTuple):
    """A run or attack that the tables leave out; ``training`` is its log so far."""

    place: Path
    state: str
    training: Sequence[Mapping[str, float]] = ()


def gather(paths: Sequence[Path]) -> tuple[list[Measured], list[Broken]]:
    """Read all runs; a path is a run directory or a folder of them."""
    runs, broken = list[Measured](), list[Broken]()
    for path in dict.fromkeys(run for each in paths for run in expand(each)):
        try:
            found = read_run(path)
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            found = Broken(path, f"cannot be read: {type(error).__name__}: {error}")
        if isinstance(found, Broken):
            broken.append(found)
        else:
            runs.append(found)
            broken += missing_attacks(found)
    return join(runs), broken


def expand(path: Path) -> list[Path]:
    """The run directories at or below a path."""
    if found := list(find_runs(path)):
        return found
    raise ValueError(
        f"{path} is not a run directory: neither it nor a folder in it has a recipe.json"
    )


def find_runs(root: Path) -> Iterator[Path]:
    """Run directories below ``root``, also unfinished ones; links are not followed."""
    for folder, names, files in os.walk(root):
        names.sort()
        path = Path(folder)
        if {"recipe.json", "failed.json"} & set(files) or path.suffix == ".partial":
            names.clear()  # a run directory contains no other run
            yield path


def read_run(path: Path) -> Measured | Broken:
    """A finished run, or the state of an unfinished one."""
    run = RunDir(path)
    if run.has("done"):
        return checked(read(run))
    if run.has("failed"):
        return Broken(path, f"failed: {run.read('failed')['error']}", numbers(run.rows("train")))
    if not run.has("recipe"):
        return Broken(path, "was stopped before its first measurement was complete")
    return Broken(path, progress(run.read("recipe"), run), numbers(run.rows("train")))


def checked(m: Measured) -> Measured:
    """Compute every part of a report for one run, so that a broken record fails here."""
    alone = [row(m.run.path.name, [m])]
    for part in (after_attacks, recovered, recovery, cosines, masks, agreements):
        part(alone)
    before_and_after(alone)
    repeats(alone, m.run.path)
    samples(alone[0])
    landscape_figures(alone)
    similarity_figures(alone)
    return m


def progress(recipe: Any, run: RunDir) -> str:
    """The progress of an unfinished run."""
    stages = run.stages()
    attacks = recipe["attacks"]
    over = sum(f"{a}-end" in stages for a in attacks)
    steps = len(numbers(run.rows("train")))
    parts = [f"unfinished: {steps} of {recipe['optim']['steps']} steps of unlearning"]
    if undo := recipe.get("undo"):
        parts.append(f"{len(run.rows(DISTILLED))} of {undo['distil_steps']} of distillation")
    if "after" in stages:
        parts.append(f"{over} of {len(attacks)} attacks")
    return ", ".join(parts)


def missing_attacks(m: Measured) -> list[Broken]:
    """Attacks of a finished run that failed or left no score."""
    failed = m.run.failures()
    missing = [a for a in m.recipe["attacks"] if a not in (*m.attacks, *failed)]
    states = [f"attack {a!r} failed: {why}" for a, why in failed.items()]
    states += [f"attack {a!r} left no score" for a in missing]
    return [Broken(m.run.path, state) for state in states]
