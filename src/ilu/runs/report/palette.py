"""Colour, line style and marker of every model and series: the same in all pictures.

A method and its variants have one hue. Without a penalty its line is solid, with ILU dashed, as the
control dotted. Another ending of a recipe's name, such as ``-sam``, is a dash-dotted line with a
marker of its own. The original model is grey.
"""

from collections.abc import Sequence
from itertools import chain, cycle
from typing import NamedTuple

GREY = "#7a7f85"
HUES = (
    "#3b82c4", "#e07b39", "#3f9e5a", "#c94f4f", "#8d6cc4",
    "#a0745a", "#d36fae", "#a8a02c", "#2fa7b5",
)  # fmt: skip
FIXED = {"npo": HUES[0], "rmu": HUES[1], "simnpo": HUES[2], "graddiff": HUES[3], "dpo": HUES[4]}
"""Hues of methods that are often shown; other names have the free hues in their order."""
ORIGINAL = "original"
"""A name that begins with this word is that of the original model."""
DASHES = {"ilu": "--", "control": ":"}
"""Last part of a recipe's name -> line style."""
MARKERS = {
    "sam": "s", "lat": "^", "tar": "D", "lookahead": "v", "wa": "P", "rs": "X", "gp": "*",
    "cr": "p", "mudman": "h",
}  # fmt: skip
"""Ending of a recipe's name -> marker."""
REPEATED = ("o", "s", "^", "D", "v", "P", "X", "*", "p")
"""Markers of the names that have the same hue since there are more names than hues."""


class Look(NamedTuple):
    """Colour, line style and marker of a line, as Matplotlib names them."""

    colour: str
    dash: str = "-"
    marker: str = "o"


GUESSING = Look("#808080", ":", "")
"""The line at the value that guessing gives."""


class Parts(NamedTuple):
    """A name taken apart: method, ending, and line style."""

    method: str
    ending: str
    dash: str


def looks(names: Sequence[str]) -> list[Look]:
    """The look of each name in a picture; ``rmu (b)`` is another model named ``rmu``.

    Of several models with the same name, the second has the hue of the other second ones.
    """
    parts = [taken_apart(name) for name in names]
    repeats = [parts[:i].count(each) for i, each in enumerate(parts)]
    keys = [(each.method, n) for each, n in zip(parts, repeats, strict=True)]
    hues = hues_of(list(dict.fromkeys(keys)))
    return [look(each, *hues[key]) for each, key in zip(parts, keys, strict=True)]


def hues_of(keys: Sequence[tuple[str, int]]) -> dict[tuple[str, int], tuple[str, str]]:
    """The hue of each key, and a marker that differs between keys of the same hue."""
    found = {key: FIXED[key[0]] for key in keys if key[0] in FIXED and not key[1]}
    found |= {key: GREY for key in keys if key[0] == ORIGINAL}
    free = chain([hue for hue in HUES if hue not in found.values()], cycle(HUES))
    found |= {key: next(free) for key in keys if key not in found}
    hues = [found[key] for key in keys]
    markers = [REPEATED[hues[:i].count(hue) % len(REPEATED)] for i, hue in enumerate(hues)]
    return dict(zip(keys, zip(hues, markers, strict=True), strict=True))


def look(parts: Parts, hue: str, marker: str) -> Look:
    """The look of a name in its hue."""
    if not parts.ending:
        return Look(hue, parts.dash, marker)
    return Look(hue, "-." if parts.dash == "-" else parts.dash, MARKERS[parts.ending])


def taken_apart(name: str) -> Parts:
    """Take a label such as ``npo-sam-ilu (folder)`` apart."""
    recipe = name.split(" (")[0]
    if recipe.split(":")[0] == ORIGINAL:
        return Parts(ORIGINAL, "", "-")
    first, *rest = recipe.split("-")
    dash = DASHES.get(rest[-1], "-") if rest else "-"
    rest = rest[:-1] if dash != "-" else rest
    ending = rest[-1] if rest and rest[-1] in MARKERS else ""
    return Parts("-".join([first, *(rest[:-1] if ending else rest)]), ending, dash)
