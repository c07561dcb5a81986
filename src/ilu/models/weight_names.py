"""Names of weights: which a pattern matches, and the module and block that a name belongs to."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from torch import nn

OUTSIDE = "-"
"""The block of a weight that lies outside the blocks."""


def named_trained(model: nn.Module, pattern: str) -> Mapping[str, nn.Parameter]:
    """Parameters whose name contains a match of the regular expression ``pattern``."""
    try:
        found = {n: p for n, p in model.named_parameters() if re.search(pattern, n)}
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    if not found:
        some = ", ".join(n for n, _ in list(model.named_parameters())[:3])
        raise ValueError(f"no weight name matches {pattern!r}; names look like: {some}")
    return found


class Place(NamedTuple):
    """Where a weight belongs: its module, such as mlp.down_proj, and its block."""

    module: str
    block: str


def place(name: str) -> Place:
    """Take the name of a weight apart."""
    found = re.search(r"\.(\d+)\.(.+)$", f".{name}")
    if found:
        return Place(module_name(found[2]), found[1])
    return Place(module_name(name).rpartition(".")[2], OUTSIDE)


def module_name(name: str) -> str:
    """A weight's name without its last part, if it has another."""
    return name.rpartition(".")[0] or name


def module_of(name: str) -> str:
    """``block 3`` for a weight of the fourth block, otherwise the name of its module."""
    module, block = place(name)
    return module if block == OUTSIDE else f"block {block}"


def kind_of(name: str) -> str:
    """``mlp.down_proj`` for that weight of every block, otherwise the name of its module."""
    return place(name).module


def in_blocks(which: Iterable[int]) -> str:
    """Names of all weights in some blocks: later numbers in a name count experts or parts."""
    return rf"^\D*\.({'|'.join(map(str, which))})\."
