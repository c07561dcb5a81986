"""Carry out a recipe: measure, unlearn, measure, attack, measure."""

import json
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ilu.evals.cached_suite import evaluate_once
from ilu.methods.masks.make import Masking
from ilu.methods.robust.undo import DISTIL
from ilu.models.load import fingerprint_model, save_model, set_weights, weights_hash
from ilu.models.load_sharded import set_sharded_weights
from ilu.models.lora import Trained, adapting
from ilu.models.weight_names import named_trained
from ilu.runs import undo_stage
from ilu.runs.attack_stage import Attacking, OnEval, attack_all, forget_samples
from ilu.runs.check import check_writable
from ilu.runs.choose import cautions
from ilu.runs.mask_stage import begin_mask, mask_data, mask_of
from ilu.runs.prepare import Prepared, prepare
from ilu.runs.recipe import Recipe
from ilu.runs.results.outcome import outcome
from ilu.runs.run_dir import RunDir
from ilu.runs.tracking import Track, untracked
from ilu.runs.validation import ROWS, Watch
from ilu.system.atomic import json_hash, new_folder, write_text
from ilu.system.distributed import ALONE, Ranks
from ilu.system.locks import alone
from ilu.system.provenance import code_diff, environment, peak_memory
from ilu.system.record import describe, differences, renewed
from ilu.system.scores import Progress
from ilu.system.secrets import refuse_secrets
from ilu.training.checkpoint import Checkpoints
from ilu.training.fit import Row, check_training, fit
from ilu.types import LM, Mask

FREE: Mapping[str, Any] = {"seconds": 0.0, "peak_memory_bytes": 0, "total_seconds": 0.0}
"""What a run has cost before it begins."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a run needs beside its recipe; nothing here changes a number.

    ``on_step``: called with each row of ``train.jsonl`` and ``undo.jsonl``. ``on_eval``: called
    with a stage (before, after, ATTACK-end, ...) and its scores by metric. ``on_note``: called with
    a sentence for each setting that was chosen for the model, and each training that may end early.
    ``shared``: a folder for results that several runs share; each is computed once. ``samples``:
    keep the texts of a few questions and answers.
    """

    device: str = "cpu"
    save_every: int | None = None
    resume: bool = False
    progress: Progress = lambda name, done, total: None
    stop: Callable[[], bool] = lambda: False
    track: Track = untracked
    on_step: Callable[[Row], None] = lambda row: None
    on_eval: OnEval = lambda stage, scores: None
    on_note: Callable[[str], None] = lambda text: None
    shared: Path | None = None
    samples: bool = True
    ranks: Ranks = ALONE

    def __post_init__(self) -> None:
        if self.save_every is not None and self.save_every < 1:
            raise ValueError(f"`save_every` {self.save_every}: it must be at least 1, or left out")
        if self.shared and self.ranks.size > 1:  # they would wait for each other's lock
            raise ValueError("several processes that carry out one run share no folder with others")


def run(recipe: Recipe, path: Path, options: Options = Options()) -> RunDir:
    """Fill the folder ``path`` with the results of ``recipe``.

    Raises ValueError for anything wrong with the recipe, the model or the data before the folder
    is made, and ``Stopped`` once ``options.stop()`` is true; then ``resume`` continues. A finished
    run is returned as it is, if recipe, model and data are still the same; an attack that failed
    is tried again.
    """
    refuse_existing(path, options)
    return run_prepared(prepare(recipe, options.device, options.ranks), path, options)


def run_prepared(prepared: Prepared, path: Path, options: Options) -> RunDir:
    """The same with model and data that are loaded already; no other process may do so now."""
    with alone(path) if options.ranks.leads else nullcontext():
        return fill(prepared.recipe, prepared, path, options)


def fill(recipe: Recipe, prepared: Prepared, path: Path, options: Options) -> RunDir:
    """What ``run`` promises, in a folder that is ours alone."""
    refuse_existing(path, options)
    began = time.monotonic()
    torch.manual_seed(recipe.seed)
    begun = options.ranks.first(path.exists)
    out = RunDir(path, options.ranks) if begun else begin(recipe, prepared, path, options)
    same_run(out, recipe, prepared)
    if out.has("done") and not out.failures():
        return out
    try:
        unlearn(recipe, prepared, out, options)
        if not out.has("model"):  # by which attacks carried out elsewhere know what they attacked
            out.write("model", fingerprint_model(str(out.path / "model")))
        measure(recipe, prepared.lm, out, "after", options)
        attack_all(attacking(recipe, prepared.lm, out, options))
        if options.ranks.leads:
            Checkpoints(out.path / "checkpoints").remove()
    finally:
        add_cost(out, total_seconds=time.monotonic() - began)
    cost = out.read("cost")
    peak = max(peak_memory(), cost["peak_memory_bytes"])
    done = {"seconds": cost["total_seconds"], "peak_memory_bytes": peak}
    out.write("done", {**done, **forgotten(out)})
    options.ranks.any(True)  # for all it is done
    return out


def forgotten(out: RunDir) -> dict[str, Any]:
    """How much was forgotten, if the run unlearned and this was measured."""
    recipe = out.read("recipe")
    if not (recipe["objective"] or recipe.get("edit")):
        return {}
    found = outcome(recipe, out.scores("before"), out.scores("after"))
    return {} if found is None else {"forgotten": found.share, "nothing_forgotten": found.nothing}


def refuse_existing(path: Path, options: Options) -> None:
    """Say early that a folder is taken, before a model is loaded for nothing."""
    exists = options.ranks.first(path.exists)
    if exists and not (options.resume and (path / "recipe.json").is_file()):
        hint = "it holds no run to resume" if options.resume else "continue it with `resume`"
        raise ValueError(f"{path} exists already: choose another `out`, delete it, or {hint}")
    if options.ranks.leads:
        check_writable(path)


def begin(recipe: Recipe, prepared: Prepared, path: Path, options: Options) -> RunDir:
    """Make the run's folder, in one move and with the first measurement in it."""
    leads, shared = options.ranks.leads, options.shared
    say_what_was_chosen(prepared, options)
    record = describe(recipe)
    refuse_secrets(json.dumps(record, ensure_ascii=False), "recipe.json")
    with new_folder(path) if leads else nullcontext(path) as folder:
        out = RunDir(folder, options.ranks)
        scores = evaluate_once(recipe.metrics, prepared.lm, shared)
        out.write_scores("before", scores)
        keep_samples(recipe, prepared.lm, out, "before", options)
        options.on_eval("before", scores)
        out.write("environment", environment())
        out.write("data", prepared.data)
        out.write("recipe", record)
        if leads:
            write_text(folder / "code.diff", code_diff())
        if leads and recipe.mask:
            data = mask_data(recipe, prepared.streams)
            begin_mask(recipe.mask, prepared.lm, data, folder, options.progress, shared)
        if leads and isinstance(recipe.mask, Masking):  # one that was given is checked already
            mask = mask_of(recipe, prepared.lm.model, folder)
            check_training(prepared.lm.model, recipe.objective, recipe.optim, mask)
    options.ranks.any(True)  # from here on the folder is there for all
    return RunDir(path, options.ranks)


def say_what_was_chosen(prepared: Prepared, options: Options) -> None:
    """Report the settings that were chosen for the model, and warn of those that do not suit it."""
    for note in prepared.notes:
        options.on_note(note)
    alone_here = options.ranks.size == 1
    found = cautions(prepared.recipe, prepared.lm, prepared.streams) if alone_here else []
    for caution in found:
        warnings.warn(caution, stacklevel=2)


def same_run(out: RunDir, recipe: Recipe, prepared: Prepared) -> None:
    """Refuse to continue under other settings, or on data or weights that have changed."""
    changed = differences(renewed(out.read("recipe")), json.loads(json.dumps(describe(recipe))))
    changed += differences(out.read("data"), prepared.data, "data")
    if changed:
        raise ValueError(
            f"{out.path} was begun with other settings or data ({'; '.join(changed[:3])}): "
            "bring them back, or choose another `out`"
        )


def measure(recipe: Recipe, lm: LM, out: RunDir, stage: str, options: Options) -> None:
    """Score ``lm``, unless a resumed run has done so already."""
    if not out.has(f"scores/{stage}"):
        scores = evaluate_once(recipe.metrics, lm, options.shared)
        keep_samples(recipe, lm, out, stage, options)
        out.write_scores(stage, scores)
        options.on_eval(stage, scores)


def keep_samples(recipe: Recipe, lm: LM, out: RunDir, stage: str, options: Options) -> None:
    """Write what the model says to a few questions on what is to be forgotten."""
    if options.samples and options.ranks.size == 1:
        out.write_samples(stage, forget_samples(recipe, lm))


def attacking(recipe: Recipe, lm: LM, out: RunDir, options: Options) -> Attacking:
    """The attacks of a run."""
    return Attacking(
        recipe=recipe,
        lm=lm,
        out=out,
        progress=options.progress,
        stop=options.stop,
        track=options.track,
        on_eval=options.on_eval,
        samples=options.samples,
        save_every=options.save_every,
        kept=options.shared and options.shared / "attacks",
    )


def unlearn(recipe: Recipe, prepared: Prepared, out: RunDir, options: Options) -> None:
    """Unlearn, or take the model that a resumed run has saved already; it is in ``prepared``."""
    model, folder = prepared.lm.model, out.path / "model"
    if options.ranks.first(folder.is_dir):
        (set_sharded_weights if options.ranks.sharded else set_weights)(model, folder)
        return
    mask = mask_of(recipe, model, out.path)
    checkpoints = Checkpoints(out.path / "checkpoints", options.save_every, options.ranks)
    began = time.monotonic()
    try:
        if recipe.undo is None or not undo_stage.has_begun(checkpoints):
            train(recipe, prepared, mask, checkpoints, out, options)
        if recipe.undo:
            distil(recipe, prepared, checkpoints, out, options)
    finally:
        add_cost(out, seconds=time.monotonic() - began, peak_memory_bytes=peak_memory())
    save_model(prepared.lm, folder, options.ranks)
    model.float()  # What follows is float32 also after adamw-bf16, as it is in a resumed run.
    checkpoints.remove()


def train(
    recipe: Recipe,
    prepared: Prepared,
    mask: Mask | None,
    checkpoints: Checkpoints,
    out: RunDir,
    options: Options,
) -> None:
    """Train in place, and after that carry out the weight arithmetic."""
    model = prepared.lm.model
    last = checkpoints.latest()
    done_before = int(last.name) if last else 0
    out.keep_rows("train", done_before)
    out.keep_rows(ROWS, sum(row["step"] <= done_before for row in out.rows(ROWS)) if last else 0)
    watch = None

    def log(row: Row) -> None:
        out.append("train", row)
        options.on_step(row)
        done = int(row["step"]) + 1
        if options.ranks.leads:
            options.progress(f"{recipe.name}: unlearn", done, recipe.optim.steps)
        options.track({k: v for k, v in row.items() if k != "step"}, done)
        if watch:
            watch(done)

    # Here, and also when a run is resumed, the model has its original weights.
    original = {n: p.detach().clone() for n, p in model.named_parameters() if recipe.edit}
    if recipe.objective:
        pattern = recipe.optim.parameters
        with adapting(model, recipe.lora, pattern, seed=recipe.seed) as trained:
            watch = watched(recipe, prepared.lm, trained, out)
            fit(
                trained.model,
                recipe.objective,
                prepared.streams,
                replace(recipe.optim, parameters=trained.pattern),
                mask=mask,
                log=log,
                checkpoints=checkpoints,
                stop=options.stop,
                ranks=options.ranks,
            )
            if watch and (kept := watch.put()):
                options.on_note(kept)
    if recipe.edit:
        recipe.edit(list(model.parameters()), list(original.values()))


def distil(
    recipe: Recipe, prepared: Prepared, checkpoints: Checkpoints, out: RunDir, options: Options
) -> None:
    """Noise and distil the unlearned model in place."""
    stage = recipe.distillation()
    assert stage

    def log(row: Row) -> None:
        options.on_step(row)
        done = int(row["step"]) + 1
        if options.ranks.leads:
            options.progress(f"{recipe.name}: distil", done, stage.optim.steps)
        options.track({k: v for k, v in row.items() if k != "step"}, recipe.optim.steps + done)

    model, stream = prepared.lm.model, prepared.streams[DISTIL]
    note = undo_stage.carry_out(recipe, model, stream, out, checkpoints, log, options.stop)
    options.on_note(note)


def watched(recipe: Recipe, lm: LM, trained: Trained, out: RunDir) -> Watch | None:
    """The validation during training, measured once before it begins."""
    if recipe.validation is None:
        return None
    file = out.path / "checkpoints" / "kept.safetensors"
    weights = named_trained(trained.model, trained.pattern)
    watch = Watch(recipe.validation, lm, out, file, weights, recipe.optim.steps)
    if not out.rows(ROWS):
        watch(0)
    return watch


def add_cost(
    out: RunDir, *, seconds: float = 0.0, total_seconds: float = 0.0, peak_memory_bytes: int = 0
) -> None:
    """Add to what earlier sessions of an interrupted run have cost.

    ``seconds`` and the memory are those of the unlearning, ``total_seconds`` of all.
    """
    if not out.ranks.leads:
        return
    own = RunDir(out.path)  # which asks no other process: it may be gone
    cost = {**FREE, **(own.read("cost") if own.has("cost") else {})}
    own.write(
        "cost",
        {
            "seconds": cost["seconds"] + seconds,
            "peak_memory_bytes": max(cost["peak_memory_bytes"], peak_memory_bytes),
            "total_seconds": cost["total_seconds"] + total_seconds,
        },
    )


def run_once(recipe: Recipe, folder: Path, options: Options = Options()) -> RunDir:
    """The run of ``recipe`` in ``folder``, carried out or continued only if it is not finished.

    Named by a hash of the recipe, the content of its data and the weights it starts from.
    """
    prepared = prepare(recipe, options.device)
    recipe = prepared.recipe
    weights = weights_hash(prepared.lm.model)
    key = json_hash([describe(recipe), prepared.data, weights])
    path = folder / f"{recipe.name}-{key[:16]}"
    return run_prepared(prepared, path, replace(options, resume=path.exists()))
