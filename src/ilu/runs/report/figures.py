"""Panels and legend entries of the report."""

from collections.abc import Sequence
from typing import NamedTuple

from ilu.runs.report.svg import colour, dash


class Entry(NamedTuple):
    """A name in a legend with the colour and dash of its line."""

    name: str
    style: int
    colour: str
    dash: str


class Panel(NamedTuple):
    """A figure with its title; its own legend if it differs from the legend of the page."""

    title: str
    svg: str
    legend: Sequence[Entry] = ()


def entry(name: str, style: int) -> Entry:
    """One entry of a legend."""
    borders = {"-": "solid", "--": "dashed", ":": "dotted"}
    return Entry(name, style, colour(style), borders[dash(style)])
