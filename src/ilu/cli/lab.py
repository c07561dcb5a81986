"""``ilu lab build``: rebuild the lab's tokenizer and model from their script."""

from collections.abc import Sequence
from dataclasses import replace

from ilu.cli.arguments.lab import read
from ilu.cli.terminal import console, number, progress, table
from ilu.lab.build import Plan, build


def main(argv: Sequence[str]) -> None:
    """Carry out the command."""
    wanted = read(argv)
    if wanted.out.exists():
        raise ValueError(f"{wanted.out} exists already: choose another --out or delete it")
    start = Plan()
    steps = start.optim.steps if wanted.steps is None else wanted.steps
    optim = replace(start.optim, steps=steps)
    plan = replace(start, optim=optim, seed=wanted.seed, without=wanted.without)
    with progress() as shown:
        found = build(wanted.out, plan, progress=lambda d, n: shown("pretraining", d, n))
    table("accuracy", ("questions", "value"), [(k, number(v)) for k, v in found.items()])
    console.print(f"model: {wanted.out}", markup=False)
