"""A figure with its title, and the entries of a legend."""

from collections.abc import Sequence
from typing import NamedTuple

from ilu.runs.report.svg import colour, dash


class Entry(NamedTuple):
    """A name of a legend with the look of its line."""

    name: str
    style: int
    colour: str
    dash: str


class Panel(NamedTuple):
    """A figure with its title, and its own legend where the page's does not serve."""

    title: str
    svg: str
    legend: Sequence[Entry] = ()


def entry(name: str, style: int) -> Entry:
    """One entry of a legend."""
    borders = {"-": "solid", "--": "dashed", ":": "dotted"}
    return Entry(name, style, colour(style), borders[dash(style)])
