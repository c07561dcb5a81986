"""The flags of ``ilu lab build``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ilu.cli.flags import HELP, parse
from ilu.lab.domains import DomainName


@dataclass(frozen=True, kw_only=True)
class Build:
    """Pretrain the lab's model from nothing: about 7 minutes on two cores.

    Example: ilu lab build --out my-lab

    Example: ilu lab build --without agents --out my-control

    Args:
        out: new folder for the model, its tokenizer and build.json.
        steps: pretraining steps; if left out, those of the model of this package. With fewer the
            model will not know its world.
        seed: of the initial weights and the order of the texts.
        without: a part of the world that the model never sees; without agents it is the control
            that comes with the package as lab-never.
    """

    out: Path
    steps: int | None = None
    seed: int = 0
    without: DomainName | None = None


def read(argv: Sequence[str]) -> Build:
    """Parse the flags behind ``build``, the only thing that can be done with the lab."""
    if argv and argv[0] in HELP:
        return parse(Build, "ilu lab build", argv)
    if not argv or argv[0] != "build":
        raise ValueError(
            f"ilu lab {' '.join(argv)}: the lab can only be built: ilu lab build --out D"
        )
    return parse(Build, "ilu lab build", argv[1:])
