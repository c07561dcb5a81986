"""Terminal output: progress, tables, warnings."""

import json
import re
import sys
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ilu.cli.flags import as_flags
from ilu.system import scores
from ilu.system.leader import leads

console = Console(highlight=False)
PACKAGE = Path(__file__).parents[1]
errors = Console(stderr=True, highlight=False)
EVERY = 30.0
"""Seconds between two progress lines in a log file."""


@contextmanager
def progress(
    total: int | None = None, detail: Callable[[str], str] = lambda name: ""
) -> Generator[scores.Progress]:
    """Progress bars on a terminal or in a notebook with ipywidgets; plain lines elsewhere.

    ``total`` is the number of steps of all stages together; None shows no bar over all of them.
    ``detail`` of a stage, such as its loss, is added to the plain lines.
    """
    if not (console.is_terminal or (console.is_jupyter and find_spec("ipywidgets"))):
        yield plain_lines(detail=detail)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        overall = None if total is None else bars.add_task("everything", total=total)
        current = bars.add_task("", visible=False)
        name_shown = ""

        def show(name: str, done: int, steps: int) -> None:
            nonlocal name_shown
            if name != name_shown:
                bars.reset(current, description=name, total=steps, visible=True)
                name_shown = name
            bars.update(current, completed=done)
            if overall is not None:
                bars.advance(overall)

        yield show


def plain_lines(
    every: float = EVERY, detail: Callable[[str], str] = lambda name: ""
) -> scores.Progress:
    """A line at the end of each stage, and one at most every ``every`` seconds within it.

    The lines within a stage say how long it will still take at the speed so far.
    """
    last = began = time.monotonic()
    stage, done_before = "", 0

    def show(name: str, done: int, steps: int) -> None:
        nonlocal last, began, stage, done_before
        added = f", {detail(name)}" if detail(name) else ""
        if done == steps:
            console.print(f"{name}: {steps} of {steps}{added}", markup=False)
            return
        now = time.monotonic()
        if name != stage:
            stage, began, done_before = name, now, done
        elif now - last >= every:
            left = (now - began) / max(1, done - done_before) * (steps - done)
            console.print(f"{name}: {done} of {steps}{added}, {duration(left)} left", markup=False)
            last = now

    return show


def duration(seconds: float) -> str:
    """A time to wait, in the largest fitting unit."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; columns of numbers are right-aligned."""
    shown = Table(title=title, title_justify="left", header_style="bold")
    for i, name in enumerate(head):
        numbers = all(re.fullmatch(r"-|-?[\d.]+", row[i]) for row in rows)
        shown.add_column(name, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        shown.add_row(*row)
    console.print(shown)


def number(value: float | None) -> str:
    """Three decimals; a dash for None."""
    return "-" if value is None else f"{value:.3f}"


def error(score: scores.Score) -> str:
    """A standard error; a dash for a single item, which has none."""
    return number(score.stderr if score.n > 1 else None)


def warn_in_a_line() -> None:
    """Show warnings of this package as one line, and hide those of other libraries.

    Of several processes of one run, which would give the same warnings, only the first does.
    """

    def show(message: Warning | str, category: type[Warning], filename: str, *rest: object) -> None:
        if leads() and Path(filename).is_relative_to(PACKAGE):
            errors.print(as_flags(f"warning: {message}"), markup=False, soft_wrap=True)

    warnings.showwarning = show  # pyright: ignore[reportAttributeAccessIssue]
    if not sys.warnoptions:
        warnings.simplefilter("default")


def print_json(value: Any) -> None:
    """Print indented JSON on standard output."""
    console.print(json.dumps(value, indent=2), markup=False, soft_wrap=True)
