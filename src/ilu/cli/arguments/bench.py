"""The flags of ``ilu bench``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ilu.cli.arguments.sweep import Where
from ilu.cli.flags import parse
from ilu.cli.help import Positional


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Unlearn the lab's model with every method, attack it, and compare.

    Example: ilu bench methods --out bench

    Example: ilu bench methods --only rmu --only rmu-ilu --seed 0 --seed 1 --out bench

    Args:
        what: what is compared.
        out: folder for methods.json, methods.md and one run directory per method and seed. It is a
            sweep folder: the same command again, or ilu sweep resume, runs only what is missing.
        only: a recipe to measure instead of all; repeat the flag for several.
        seed: a random seed; repeat the flag for several runs of each method; 0, 1, 2 if left out.
        quick: a smoke test with too few steps for meaningful numbers.
    """

    what: Positional[Literal["methods"]]
    out: Path
    only: tuple[str, ...] = ()
    seed: tuple[int, ...] = ()
    quick: bool = False
    where: Where = Where()


def read(argv: Sequence[str]) -> Bench:
    """Parse the flags."""
    return parse(Bench, "ilu bench", argv)
