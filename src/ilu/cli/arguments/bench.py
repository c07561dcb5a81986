"""The flags of ``ilu bench``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ilu.cli.arguments.sweep import Where
from ilu.cli.flags import Positional, parse


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Unlearn the lab's model with every method, attack it, and compare.

    Example: ilu bench methods --out bench

    Example: ilu bench methods --only rmu --only rmu-ilu --seed 0 --seed 1 --out bench

    Args:
        out: folder for methods.json, methods.md and one run directory per method and seed. It is a
            sweep folder: the same command again, or ilu sweep resume, runs only what is missing.
        only: a recipe to measure instead of all; repeat the flag for several.
        seed: a random seed; repeat the flag for several runs of each method; 0, 1, 2 if left out.
        quick: a smoke test with too few steps for meaningful numbers.
    """

    what: Positional[str]
    out: Path
    only: tuple[str, ...] = ()
    seed: tuple[int, ...] = ()
    quick: bool = False
    where: Annotated[Where, tyro.conf.arg(name="")] = Where()


def read(argv: Sequence[str]) -> Bench:
    """Parse the flags."""
    return parse(Bench, "ilu bench", argv)
