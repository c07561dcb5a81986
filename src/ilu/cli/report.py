"""``ilu report``, ``rerun``, ``methods`` and ``doctor``."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ilu.cli.attack import show_stages
from ilu.cli.catalogue import entries
from ilu.cli.doctor import findings
from ilu.cli.flags import Positional, parse
from ilu.cli.methods_page import page
from ilu.cli.terminal import console, print_json, table
from ilu.cli.unlearn import Place
from ilu.runs.attack_stage import check_failures
from ilu.runs.recipe import read_recipe
from ilu.runs.report.formats import write_report
from ilu.runs.run_dir import RunDir
from ilu.system.atomic import write_text
from ilu.system.locks import alone
from ilu.system.record import differences


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write a report on run directories as one HTML page; requires no model and no network.

    Example: ilu report runs/first runs/second --out report.html

    Args:
        runs: run directories, folders of them, or score files of ilu evaluate --out.
        out: file to write; .html is the page, .md, .json, .csv and .tex the table of models.
        against: name of the model in the table to compare all others with, such as a never-knew
            model; if left out, the best one.
    """

    runs: Positional[tuple[Path, ...]]
    out: Path = Path("report.html")
    against: str | None = None


def report(argv: Sequence[str]) -> None:
    """Carry out ``ilu report``."""
    wanted: Report = parse(Report, "ilu report", argv)
    if not wanted.runs:
        raise ValueError("ilu report needs at least one run directory")
    with alone(wanted.out):
        write_report(wanted.runs, wanted.out, wanted.against)
    console.print(f"report: {wanted.out}", markup=False, soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class Rerun:
    """Repeat a run from its recipe.json; on the same machine the weights are the same bytes.

    Example: ilu rerun runs/first --out runs/again

    Args:
        source: run directory to repeat.
    """

    source: Positional[Path]
    place: Annotated[Place, tyro.conf.arg(name="")]


def rerun(argv: Sequence[str]) -> None:
    """Carry out ``ilu rerun``."""
    wanted: Rerun = parse(Rerun, "ilu rerun", argv)
    record = wanted.source / "recipe.json"
    if not record.is_file():
        raise ValueError(f"{wanted.source} is not a run directory: it has no recipe.json")
    recipe = read_recipe(record)
    out = wanted.place.run(recipe)
    old, new = (RunDir(path).read("data") for path in (wanted.source, out.path))
    if changed := differences(old, new, "data"):
        warnings.warn(f"the data or the model has changed: {'; '.join(changed[:3])}", stacklevel=2)
    show_stages(out)
    check_failures(out)


@dataclass(frozen=True, kw_only=True)
class Methods:
    """List every loss, rule, mask, attack, metric and recipe with its paper.

    Example: ilu methods --json

    Args:
        json: print JSON.
        out: write the list with equations and settings to this Markdown file.
    """

    json: bool = False
    out: Path | None = None


def methods(argv: Sequence[str]) -> None:
    """Carry out ``ilu methods``."""
    wanted: Methods = parse(Methods, "ilu methods", argv)
    found = entries()
    if wanted.out:
        write_text(wanted.out, page())
        return
    if wanted.json:
        print_json([e._asdict() for e in found])
        return
    rows = [(e.name, e.kind, f"arXiv {e.paper}" if e.paper else "", e.summary) for e in found]
    table("methods", ("name", "kind", "paper", "what it does"), rows)


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Show installed versions, the hardware, and whether the hub can be reached.

    Example: ilu doctor
    """


def doctor(argv: Sequence[str]) -> None:
    """Carry out ``ilu doctor``."""
    parse(Doctor, "ilu doctor", argv)
    table("ilu doctor", ("item", "value"), list(findings().items()))
