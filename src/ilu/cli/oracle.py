"""``ilu oracle``: a model that never saw what others are to forget."""

from collections.abc import Sequence

from ilu.cli.arguments.oracle import read
from ilu.cli.signals import interruptible
from ilu.cli.terminal import console, progress
from ilu.cli.unlearn import summarise
from ilu.recipes.retrain import oracle
from ilu.recipes.user_data import dataset
from ilu.runs.run import Options, run_once
from ilu.training.fit import Optim


def main(argv: Sequence[str]) -> None:
    """Carry out the command."""
    wanted = read(argv)
    optim = Optim(
        lr=wanted.lr,
        steps=wanted.steps,
        warmup=wanted.warmup,
        schedule=wanted.schedule,
        weight_decay=wanted.weight_decay,
        micro_batch=wanted.micro_batch,
    )
    source = dataset(wanted.retain, wanted.retain_columns, wanted.truncate)
    recipe = oracle(wanted.model, source, optim, batch_size=wanted.batch_size, seed=wanted.seed)
    with interruptible() as stop, progress() as shown:
        options = Options(
            device=wanted.device, save_every=wanted.save_every, progress=shown, stop=stop
        )
        out = run_once(recipe, wanted.out, options)
    summarise(out)
    console.print(f"reference: --reference {out.path / 'model'}", markup=False, soft_wrap=True)
