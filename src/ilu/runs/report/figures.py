"""Panels and legend entries of the report."""

from collections.abc import Sequence
from typing import NamedTuple

from ilu.runs.report.palette import GUESSING, Look, looks

STROKES = {"-": "", "--": "5 3", ":": "1.5 2.5", "-.": "6 2 1.5 2"}
"""Line style -> ``stroke-dasharray``."""
SHAPES = {
    "": "",
    "o": "M11 5a3 3 0 1 0 6 0a3 3 0 1 0-6 0z",
    "s": "M11 2h6v6h-6z",
    "^": "M14 1.5l3.5 6.5h-7z",
    "v": "M14 8.5l3.5-6.5h-7z",
    "D": "M14 1l4 4l-4 4l-4-4z",
    "P": "M13 1.5h2v2.5h2.5v2h-2.5v2.5h-2v-2.5h-2.5v-2h2.5z",
    "X": "M11 2l1.5 0l1.5 2l1.5-2h1.5l-2 3l2 3h-1.5l-1.5-2l-1.5 2h-1.5l2-3z",
    "*": "M14 .5l1.2 3h3.2l-2.6 2l1 3.2l-2.8-1.9l-2.8 1.9l1-3.2l-2.6-2h3.2z",
    "p": "M14 1.2l4 3l-1.5 4.6h-5l-1.5-4.6z",
    "h": "M14 1l3.5 2v4l-3.5 2l-3.5-2v-4z",
}
"""Marker -> its path in a field of 28 by 10."""


class Entry(NamedTuple):
    """A name in a legend with its colour and, as SVG, the dashes and the marker of its line."""

    name: str
    style: int
    colour: str
    dash: str
    marker: str


class Panel(NamedTuple):
    """A figure with its title; its own legend if it differs from the legend of the page."""

    title: str
    svg: str
    legend: Sequence[Entry] = ()


def entries(names: Sequence[str], *, marked: bool = True) -> list[Entry]:
    """The legend of several series; ``marked`` if their points have markers."""
    return [entry(name, i, look, marked) for i, (name, look) in enumerate(looked(names))]


def looked(names: Sequence[str]) -> list[tuple[str, Look]]:
    """Names with their looks."""
    return list(zip(names, looks(names), strict=True))


def entry(name: str, style: int, look: Look, marked: bool = True) -> Entry:
    """One entry of a legend."""
    marker = SHAPES[look.marker] if marked else ""
    return Entry(name, style, look.colour, STROKES[look.dash], marker)


GUESS = entry("guessing", -1, GUESSING)
"""The entry of the line at guessing."""
