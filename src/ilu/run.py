"""Carry out a recipe: measure, unlearn, measure, attack, measure."""

import json
import time
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ilu import suite
from ilu.attacking import Attacking, attack_all, fingerprint_attack
from ilu.checkpoint import Checkpoints
from ilu.data import Stream, fingerprint, open_stream, split
from ilu.environment import code_diff, environment, peak_memory
from ilu.files import file_hash, new_folder, write_text
from ilu.forward import Frozen, ModelForward, named_trained
from ilu.lora import adapted_layers, adapting
from ilu.masking import begin_mask, given_mask, mask_of
from ilu.models import fingerprint_model, load_model, save_model, set_weights
from ilu.recipe import Recipe, describe, differences
from ilu.rundir import RunDir
from ilu.tracking import Track, untracked
from ilu.train import Row, check_training, fit
from ilu.types import LM, Group, Mask, Metric, Progress


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a run needs beside its recipe; nothing here changes a number."""

    device: str = "cpu"
    save_every: int | None = None
    resume: bool = False
    progress: Progress = lambda name, done, total: None
    stop: Callable[[], bool] = lambda: False
    track: Track = untracked
    kept: Path | None = None
    """Folder of what attacks have left, by content, for other runs to take."""

    def __post_init__(self) -> None:
        if self.save_every is not None and self.save_every < 1:
            raise ValueError(f"--save-every {self.save_every}: it must be at least 1, or left out")


@dataclass(frozen=True)
class Prepared:
    """A recipe whose model and data are loaded and fit together; ``data`` identifies them."""

    lm: LM
    streams: Mapping[str, Stream]
    data: Mapping[str, Any]


def run(recipe: Recipe, path: Path, options: Options = Options()) -> RunDir:
    """Fill the folder ``path`` with the results of ``recipe``.

    Raises ValueError for anything wrong with the recipe, the model or the data before the folder
    is made, and ``Stopped`` once ``options.stop()`` is true; then ``resume`` continues. A finished
    run is returned as it is, if recipe, model and data are still the same; an attack that failed
    is tried again.
    """
    refuse_existing(path, resume=options.resume)
    return run_prepared(recipe, prepare(recipe, options.device), path, options)


def run_prepared(recipe: Recipe, prepared: Prepared, path: Path, options: Options) -> RunDir:
    """The same with model and data that are loaded already."""
    refuse_existing(path, resume=options.resume)
    started = time.monotonic()
    torch.manual_seed(recipe.seed)
    out = RunDir(path) if path.exists() else begin(recipe, prepared, path, options.progress)
    same_run(out, recipe, prepared)
    if out.has("done") and not out.failures():
        return out
    mask = mask_of(recipe, prepared.lm.model, out.path)
    with costed(out):
        unlearn(recipe, prepared, mask, out, options)
    if not out.has("model"):  # by which attacks carried out elsewhere know what they attacked
        out.write("model", fingerprint_model(str(out.path / "model")))
    measure(recipe.metrics, prepared.lm, out, "after")
    attack_all(attacking(recipe, prepared.lm, out, options))
    out.write("done", {"seconds": time.monotonic() - started, "peak_memory_bytes": peak_memory()})
    return out


def refuse_existing(path: Path, *, resume: bool) -> None:
    """Say early that a folder is taken, before a model is loaded for nothing."""
    if path.exists() and not (resume and (path / "recipe.json").is_file()):
        hint = "it holds no run to resume" if resume else "continue it with --resume"
        raise ValueError(f"{path} exists already: choose another --out, delete it, or {hint}")


def begin(recipe: Recipe, prepared: Prepared, path: Path, progress: Progress) -> RunDir:
    """Make the run's folder, in one move and with the first measurement in it."""
    with new_folder(path) as folder:
        out = RunDir(folder)
        measure(recipe.metrics, prepared.lm, out, "before")
        out.write("environment", environment())
        out.write("data", prepared.data)
        out.write("recipe", describe(recipe))
        write_text(folder / "code.diff", code_diff())
        if recipe.mask:
            begin_mask(recipe.mask, prepared.lm, prepared.streams, folder, progress)
            mask = mask_of(recipe, prepared.lm.model, folder)
            check_training(prepared.lm.model, recipe.objective, recipe.optim, mask)
    return RunDir(path)


def same_run(out: RunDir, recipe: Recipe, prepared: Prepared) -> None:
    """Refuse to continue under other settings, or on data or weights that have changed."""
    changed = differences(out.read("recipe"), json.loads(json.dumps(describe(recipe))))
    changed += differences(out.read("data"), prepared.data, "data")
    if changed:
        raise ValueError(
            f"{out.path} was begun with other settings or data ({'; '.join(changed[:3])}): "
            "bring them back, or choose another --out"
        )


def prepare(recipe: Recipe, device: str) -> Prepared:
    """Load model, data and mask, open what the attacks need, and try every loss."""
    lm = load_model(recipe.model, revision=recipe.revision, device=device)
    streams = {
        name: open_stream(feed, lm, seed=recipe.seed, name=f"--{name}")
        for name, feed in recipe.data.items()
    }
    warn_of_overlap(streams)
    try_losses(recipe, lm.model, streams)
    named_trained(lm.model, recipe.optim.parameters)
    if recipe.lora:
        adapted_layers(lm.model, recipe.lora, recipe.optim.parameters)
    check_training(lm.model, recipe.objective, recipe.optim, given_mask(recipe, lm.model))
    data = {name: fingerprint(s.examples) for name, s in streams.items()}
    attacks = {f"attack {n}": fingerprint_attack(a, lm) for n, a in recipe.attacks.items()}
    weights = {"model": fingerprint_model(recipe.model)}
    masked = {"mask": file_hash(Path(recipe.mask))} if isinstance(recipe.mask, str) else {}
    return Prepared(lm, streams, {**data, **attacks, **weights, **masked})


@torch.no_grad()
def try_losses(recipe: Recipe, model: nn.Module, streams: Mapping[str, Stream]) -> None:
    """Let a wrong layer or an impossible loss fail now and not after an hour."""
    device = next(model.parameters()).device
    for term in recipe.objective.values():
        one = split(streams[term.on](0), 1)[0].to(device)
        reference = Frozen(model, {} if term.loss.needs_reference else None)
        term.loss(ModelForward(model), reference, one)


def warn_of_overlap(streams: Mapping[str, Stream]) -> None:
    """Say how many examples are both to be forgotten and to be kept."""
    forget, retain = (
        [tuple(e.ids) for e in streams[name].examples] if name in streams else []
        for name in ("forget", "retain")
    )
    known = set(forget)
    shared = sum(ids in known for ids in retain)
    if shared:
        warnings.warn(f"{shared} retain examples are in the forget set as well", stacklevel=2)


def measure(metrics: Mapping[str, Metric | Group], lm: LM, out: RunDir, stage: str) -> None:
    """Score ``lm``, unless a resumed run has done so already."""
    if not out.has(f"scores/{stage}"):
        out.write_scores(stage, suite.measure(metrics, lm))


def attacking(recipe: Recipe, lm: LM, out: RunDir, options: Options) -> Attacking:
    """The attacks of a run."""
    return Attacking(
        recipe=recipe,
        lm=lm,
        out=out,
        progress=options.progress,
        stop=options.stop,
        track=options.track,
        kept=options.kept,
    )


def unlearn(
    recipe: Recipe, prepared: Prepared, mask: Mask | None, out: RunDir, options: Options
) -> None:
    """Train, or take the model that a resumed run has saved already; leave it in ``prepared``."""
    model, folder = prepared.lm.model, out.path / "model"
    if folder.is_dir():
        set_weights(model, folder)
        return
    checkpoints = Checkpoints(out.path / "checkpoints", options.save_every)
    last = checkpoints.latest()
    out.keep_rows("train", int(last.name) if last else 0)

    def log(row: Row) -> None:
        out.append("train", row)
        done = int(row["step"]) + 1
        options.progress(f"{recipe.name}: unlearn", done, recipe.optim.steps)
        options.track({k: v for k, v in row.items() if k != "step"}, done)

    # Here, and also when a run is resumed, the model has its original weights.
    original = {n: p.detach().clone() for n, p in model.named_parameters() if recipe.edit}
    if recipe.objective:
        pattern = recipe.optim.parameters
        with adapting(model, recipe.lora, pattern, seed=recipe.seed) as trained:
            fit(
                trained.model,
                recipe.objective,
                prepared.streams,
                replace(recipe.optim, parameters=trained.pattern),
                mask=mask,
                log=log,
                checkpoints=checkpoints,
                stop=options.stop,
            )
    if recipe.edit:
        recipe.edit(list(model.parameters()), list(original.values()))
    save_model(prepared.lm, folder)
    model.float()  # What follows is float32 also after adamw-bf16, as it is in a resumed run.
    checkpoints.remove()


@contextmanager
def costed(out: RunDir) -> Generator[None]:
    """Keep what the unlearning has cost so far, over all sessions of an interrupted run."""
    before = out.read("cost") if out.has("cost") else {"seconds": 0.0, "peak_memory_bytes": 0}
    finished = (out.path / "model").is_dir()
    began = time.monotonic()
    try:
        yield
    finally:
        seconds = before["seconds"] + (0 if finished else time.monotonic() - began)
        peak = before["peak_memory_bytes"] if finished else peak_memory()
        out.write("cost", {"seconds": seconds, "peak_memory_bytes": peak})
