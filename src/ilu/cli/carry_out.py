"""A recipe carried out from the command line: progress bars, signals, trackers, processes."""

from collections.abc import Callable
from pathlib import Path

from ilu.cli.arguments.unlearn import Place
from ilu.cli.signals import interruptible
from ilu.cli.terminal import console, progress
from ilu.runs.recipe import Recipe
from ilu.runs.run import Options, run
from ilu.runs.run_dir import NOT_TERMS, RunDir
from ilu.runs.tracking import tracking
from ilu.system.distributed import Ranks, joined
from ilu.training.fit import Row

TRAININGS = (": unlearn", ": distil")
"""Endings of the names of stages that have losses."""


def nothing_more(path: Path) -> None:
    """A run is complete when it ends."""


def carry_out(
    recipe: Recipe,
    place: Place,
    shared: Path | None = None,
    finish: Callable[[Path], None] = nothing_more,
) -> RunDir:
    """Carry out ``recipe`` here, with progress bars; a signal stops it.

    ``shared``: folder of what other runs have computed already, by content. ``finish`` writes the
    last files of the run's folder; of several processes, the first calls it.
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
        finished_by_leader(ranks, place.out, finish)
    return RunDir(place.out)


def losses(row: Row) -> str:
    """The terms of the objective in a row of the training log."""
    return ", ".join(f"{k} {v:.3g}" for k, v in row.items() if k not in NOT_TERMS)


def finished_by_leader(ranks: Ranks, path: Path, finish: Callable[[Path], None]) -> None:
    """Call ``finish`` in the first process, while the others wait for it.

    If all wrote the same file, each would remove the partial file of another.
    """
    if ranks.leads:
        finish(path)
    ranks.any(True)
