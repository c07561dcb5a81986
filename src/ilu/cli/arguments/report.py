"""The flags of ``ilu report``, ``rerun`` and ``doctor``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ilu.cli.arguments.unlearn import Place
from ilu.cli.flags import parse
from ilu.cli.help import Positional


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write a report on run directories as one HTML page; requires no model and no network.

    Example: ilu report runs/first runs/second --out report.html

    Args:
        runs: run directories, folders of them, or score files of ilu evaluate --out.
        out: file to write; .html is the page, .md, .json, .csv and .tex the table of models.
        against: name of the model in the table to compare all others with, such as a never-knew
            model; if left out, the best one.
        usable: share of the original's utility that a model must keep to count in the worst usable
            case.
    """

    runs: Positional[tuple[Path, ...]]
    out: Path = Path("report.html")
    against: str | None = None
    usable: float = 0.9


@dataclass(frozen=True, kw_only=True)
class Rerun:
    """Repeat a run from its recipe.json; on the same machine the weights are the same bytes.

    Example: ilu rerun runs/first --out runs/again

    Args:
        run: run directory to repeat.
    """

    run: Positional[Path]
    place: Place


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Show installed versions, the hardware, and whether the hub can be reached.

    Example: ilu doctor
    """


def read_report(argv: Sequence[str]) -> Report:
    """Parse the flags of ``ilu report``."""
    return parse(Report, "ilu report", argv)


def read_rerun(argv: Sequence[str]) -> Rerun:
    """Parse the flags of ``ilu rerun``."""
    return parse(Rerun, "ilu rerun", argv)


def read_doctor(argv: Sequence[str]) -> Doctor:
    """Parse the flags of ``ilu doctor``."""
    return parse(Doctor, "ilu doctor", argv)
