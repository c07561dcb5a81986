"""``ilu lab build``: rebuild the lab's tokenizer and model from their script."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ilu.cli.flags import parse
from ilu.cli.terminal import console, number, progress, table
from ilu.lab.build import Plan, build
from ilu.lab.sources import DomainName


@dataclass(frozen=True, kw_only=True)
class Build:
    """Pretrain the lab's model from nothing: about 7 minutes on two cores.

    Example: ilu lab build --out my-lab

    Example: ilu lab build --without agents --out my-control

    Args:
        out: new folder for the model, its tokenizer and build.json.
        steps: pretraining steps; with fewer the model will not know its world.
        seed: of the initial weights and the order of the texts.
        without: a part of the world that the model never sees; without agents it is the control
            that comes with the package as lab-never.
    """

    out: Path
    steps: int = Plan().optim.steps
    seed: int = 0
    without: DomainName | None = None


def main(argv: Sequence[str]) -> None:
    """Carry out the command."""
    if not argv or argv[0] != "build":
        if argv and argv[0] in ("-h", "--help"):
            return parse(Build, "ilu lab build", ["--help"])
        raise ValueError(
            f"ilu lab {' '.join(argv)}: the lab can only be built: ilu lab build --out D"
        )
    wanted: Build = parse(Build, "ilu lab build", argv[1:])
    if wanted.out.exists():
        raise ValueError(f"{wanted.out} exists already: choose another --out or delete it")
    start = Plan()
    optim = replace(start.optim, steps=wanted.steps)
    plan = replace(start, optim=optim, seed=wanted.seed, without=wanted.without)
    with progress() as shown:
        found = build(wanted.out, plan, progress=lambda d, n: shown("pretraining", d, n))
    table("accuracy", ("questions", "value"), [(k, number(v)) for k, v in found.items()])
    console.print(f"model: {wanted.out}", markup=False)
    return None
