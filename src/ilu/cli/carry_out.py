"""A recipe carried out from the command line: progress bars, signals, trackers, processes."""

from pathlib import Path

from ilu.cli.arguments.unlearn import Place
from ilu.cli.signals import interruptible
from ilu.cli.terminal import console, progress
from ilu.runs.recipe import Recipe
from ilu.runs.run import Options, run
from ilu.runs.run_dir import RunDir
from ilu.runs.tracking import tracking
from ilu.system.distributed import joined
from ilu.training.fit import NOT_TERMS, Row

TRAININGS = (": unlearn", ": distil")
"""Endings of the names of stages that have losses."""


def carry_out(recipe: Recipe, place: Place, shared: Path | None = None) -> RunDir:
    """Carry out ``recipe`` here, with progress bars, stopping when asked to.

    ``shared``: folder of what other runs have computed already, by content.
    """
    latest: Row = {}

    def on_step(row: Row) -> None:
        latest.clear()  # the next training has other terms
        latest.update(row)

    with (
        joined(shard=place.shard) as ranks,
        tracking(place.track if ranks.leads else None, recipe, place.out) as track,
        interruptible() as stop,
        progress(detail=lambda stage: losses(latest) if stage.endswith(TRAININGS) else "") as shown,
    ):
        console.quiet = not ranks.leads
        options = Options(
            device=place.device,
            save_every=place.save_every,
            resume=place.resume,
            progress=shown,
            stop=stop,
            samples=place.sample_texts,
            on_note=lambda text: console.print(text, markup=False, soft_wrap=True),
            on_step=on_step,
            track=track,
            ranks=ranks,
            shared=shared,
        )
        run(recipe, place.out, options)
    return RunDir(place.out)


def losses(row: Row) -> str:
    """The terms of the objective in a row of the training log."""
    return ", ".join(f"{k} {v:.3g}" for k, v in row.items() if k not in NOT_TERMS)
