"""The table of a sweep's runs."""

from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from rich.live import Live
from rich.table import Table

from ilu.cli.flags import as_flags
from ilu.cli.terminal import console
from ilu.runs.sweep.folder import State, Status, seconds_left, statuses

ORDER: tuple[State, ...] = ("running", "failed", "interrupted", "waiting", "done")
SHOWN = 30
"""Rows of the table while runs go on; the rest are counted below it."""


@contextmanager
def following(out: Path, workers: int) -> Generator[Callable[[str, str | None], None]]:
    """Keep a table of the sweep on a terminal; elsewhere tell each run that ends, in a line."""

    def tell(name: str, error: str | None) -> None:
        console.print(f"{name}: {'failed' if error else 'done'}", markup=False, soft_wrap=True)

    if not console.is_terminal:
        yield tell
        return
    with Live(
        get_renderable=lambda: table(statuses(out), workers, SHOWN),
        console=console,
        refresh_per_second=0.5,
        transient=True,
    ):
        yield lambda name, error: None


def show(out: Path, workers: int) -> None:
    """Print how far a sweep is, every run of it."""
    console.print(table(statuses(out), workers, None))


def table(found: Mapping[str, Status], workers: int, most: int | None) -> Table:
    """Runs with what they are doing, and why those that failed did."""
    title = ", ".join(f"{n} {state}" for state, n in counted(found))
    left = seconds_left(found, workers)
    if left:
        title += f"; about {timedelta(seconds=round(left))} left"
    shown = Table(title=title, title_justify="left", header_style="bold")
    for head in ("run", "state", "steps", "seconds", "reason"):
        shown.add_column(head, overflow="fold")
    rows = sorted(found.items(), key=lambda item: ORDER.index(item[1].state))
    for name, each in rows[:most]:
        seconds = "" if each.seconds is None else f"{each.seconds:.0f}"
        shown.add_row(name, each.state, f"{each.share:.0%}", seconds, plain(each.reason))
    if most is not None and len(rows) > most:
        shown.caption = f"and {len(rows) - most} more: ilu sweep status"
    return shown


def counted(found: Mapping[str, Status]) -> list[tuple[State, int]]:
    """How many runs are in each state that occurs."""
    counts = Counter(each.state for each in found.values())
    return [(state, counts[state]) for state in ORDER if counts[state]]


def plain(text: str) -> str:
    """A message of the library with flags, which the terminal's markup leaves alone."""
    return as_flags(text).replace("[", r"\[")
