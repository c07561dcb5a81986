"""UNDO as the stage of a run that follows the unlearning: noise the model, then distil it."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from ilu.data.stream import Stream
from ilu.methods.robust.undo import DISTIL, WINDOW
from ilu.runs.recipe import Recipe
from ilu.runs.run_dir import DISTILLED, RunDir
from ilu.system.atomic import new_file
from ilu.system.distributed import Ranks
from ilu.training.checkpoint import Checkpoints, save_tensors
from ilu.training.fit import Log, Row, fit


class CloseEnough(Exception):
    """The copy is as close to the unlearned model as was wanted."""


def teacher_file(checkpoints: Checkpoints) -> Path:
    """The weights of the unlearned model, from the end of the unlearning to that of the run."""
    return checkpoints.path / "teacher.safetensors"


def has_begun(checkpoints: Checkpoints) -> bool:
    """Whether the unlearning before this stage has ended, in this or an earlier session."""
    return checkpoints.ranks.first(teacher_file(checkpoints).is_file)


def carry_out(
    recipe: Recipe,
    model: nn.Module,
    stream: Stream,
    out: RunDir,
    checkpoints: Checkpoints,
    log: Log,
    stop: Callable[[], bool],
) -> str:
    """Noise and distil the unlearned model in place; return a sentence on how close it came.

    ``stream`` is all that it reads. ``checkpoints`` are those of the unlearning. ``log`` is called
    with each row of ``undo.jsonl``.
    """
    undo, stage, ranks = recipe.undo, recipe.distillation(), checkpoints.ranks
    assert undo
    assert stage
    keep_teacher(model, teacher_file(checkpoints), ranks)
    drop(checkpoints)
    own = Checkpoints(checkpoints.path / DISTILLED, checkpoints.every, ranks)
    last = own.latest()
    out.keep_rows(DISTILLED, int(last.name) if last else 0)
    divergences = [float(row[DISTIL]) for row in ranks.first(lambda: out.rows(DISTILLED))]

    def add(row: Row) -> None:
        out.append(DISTILLED, row)
        divergences.append(row[DISTIL])
        log(row)
        if undo.is_close(divergences):
            raise CloseEnough

    with suppress(CloseEnough):
        fit(
            model,
            stage.objective,
            {DISTIL: stream},
            stage.optim,
            start=lambda named: undo(named, recipe.seed),
            log=add,
            checkpoints=own,
            stop=stop,
            ranks=ranks,
        )
    mean = sum(divergences[-WINDOW:]) / len(divergences[-WINDOW:])
    return (
        f"distilled for {len(divergences)} of {undo.distil_steps} steps: divergence from the "
        f"unlearned model {divergences[0]:.3g} at first, {mean:.3g} nats per token at the end"
    )


@torch.no_grad()
def keep_teacher(model: nn.Module, file: Path, ranks: Ranks) -> None:
    """Save the unlearned model, or give the model of a resumed run its weights."""
    if ranks.first(file.is_file):
        saved = load_file(file)
        for name, p in model.named_parameters():
            p.copy_(saved[name])
        return
    if ranks.leads:
        with new_file(file) as half:
            save_tensors(dict(model.named_parameters()), half)
    ranks.any(True)  # from here on the file is there for all


def drop(checkpoints: Checkpoints) -> None:
    """Delete the checkpoint of the unlearning, which no resumed run needs any more."""
    last = checkpoints.latest()
    checkpoints.ranks.any(True)  # no process may still be looking
    if last and checkpoints.ranks.leads:
        shutil.rmtree(last)
