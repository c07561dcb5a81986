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
from ilu.models.load import fingerprint_model, set_weights, weights_hash
from ilu.models.load_sharded import set_sharded_weights
from ilu.models.lora import Trained, adapting
from ilu.models.save import dtype_to_save, round_weights, save_model
from ilu.models.weight_names import named_trained
from ilu.runs import undo_stage
from ilu.runs.attack_stage import Attacking, OnEval, attack_all, forget_samples
from ilu.runs.check import check_writable
from ilu.runs.choose import cautions
from ilu.runs.mask_stage import begin_mask, mask_data, mask_of
from ilu.runs.prepare import Prepared, prepare
from ilu.runs.recipe import Recipe
from ilu.runs.results.outcome import outcome
from ilu.runs.run_dir import VALIDATION, RunDir
from ilu.runs.tracking import Track, untracked
from ilu.runs.validation import Watch
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
"""The cost of a run before it begins."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Settings of a run that do not change its numbers.

    ``on_step``: called with each row of ``train.jsonl`` and ``undo.jsonl``. ``on_eval``: called
    with a stage (before, after, ATTACK-end, ...) and its scores by metric. ``on_note``: called with
    a sentence for each setting that was chosen for the model, and for each training that ended
    early; without it they are dropped (``ilu.unlearn`` writes them on standard error). ``shared``:
    a folder for results that several runs share; each is computed once. ``samples``: keep the texts
    of a few questions and answers.
    """

    device: str = "cpu"
    save_every: int | None = None
    resume: bool = False
    progress: Progress = lambda name, done, total: None
    stop: Callable[[], bool] = lambda: False
    track: Track = untracked
    on_step: Callable[[Row], None] = lambda row: None
    on_eval: OnEval = lambda stage, scores: None
    on_note: Callable[[str], None] | None = None
    shared: Path | None = None
    samples: bool = True
    ranks: Ranks = ALONE

    def __post_init__(self) -> None:
        if self.save_every is not None and self.save_every < 1:
            raise ValueError(f"`save_every` {self.save_every}: it must be at least 1, or left out")
        if self.shared and self.ranks.size > 1:  # the processes would wait for each other's lock
            raise ValueError("a run in several processes cannot use `shared`: leave it out")


def run(recipe: Recipe, path: Path, options: Options = Options()) -> RunDir:
    """Fill the folder ``path`` with the results of ``recipe``.

    Raises ValueError for an error in recipe, model or data before it makes the folder, and
    ``Stopped`` once ``options.stop()`` is true; then ``resume`` continues. A finished run is
    returned unchanged if recipe, model and data are the same; failed attacks are repeated.
    """
    refuse_existing(path, options)
    return run_prepared(prepare(recipe, options.device, options.ranks), path, options)


def run_prepared(prepared: Prepared, path: Path, options: Options) -> RunDir:
    """The same with a loaded model and data, with the lock of the folder."""
    with alone(path) if options.ranks.leads else nullcontext():
        return fill(prepared.recipe, prepared, path, options)


def fill(recipe: Recipe, prepared: Prepared, path: Path, options: Options) -> RunDir:
    """The same in a folder whose lock this process has."""
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
        if not out.has("model"):  # later attacks are matched to this run by these hashes
            own = fingerprint_model(out.model) if not recipe.leaves_the_model else None
            out.write("model", own or prepared.data["model"])
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
    options.ranks.any(True)  # waits for the other processes
    return out


def forgotten(out: RunDir) -> dict[str, Any]:
    """How much was forgotten, if the run unlearned and this was measured."""
    recipe = out.read("recipe")
    if not (recipe["objective"] or recipe.get("edit")):
        return {}
    found = outcome(recipe, out.scores("before"), out.scores("after"))
    return {} if found is None else {"forgotten": found.share, "nothing_forgotten": found.nothing}


def refuse_existing(path: Path, options: Options) -> None:
    """ValueError for a folder that exists, before the model is loaded."""
    exists = options.ranks.first(path.exists)
    if exists and not (options.resume and (path / "recipe.json").is_file()):
        hint = "it has no run to resume" if options.resume else "continue it with `resume`"
        raise ValueError(f"{path} exists already: choose another `out`, delete it, or {hint}")
    if options.ranks.leads:
        check_writable(path)


def begin(recipe: Recipe, prepared: Prepared, path: Path, options: Options) -> RunDir:
    """Make the run's folder atomically, with the scores before unlearning."""
    leads, shared = options.ranks.leads, options.shared
    report_chosen(prepared, options)
    record = describe(recipe)
    refuse_secrets(json.dumps(record, ensure_ascii=False), "recipe.json")
    with new_folder(path) if leads else nullcontext(path) as folder:
        out = RunDir(folder, options.ranks)
        scores = evaluate_once(recipe.all_metrics, prepared.lm, shared)
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
        if leads and isinstance(recipe.mask, Masking):  # ``prepare`` has checked a mask of the user
            mask = mask_of(recipe, prepared.lm.model, folder)
            check_training(prepared.lm.model, recipe.objective, recipe.optim, mask)
    options.ranks.any(True)  # waits until the folder exists
    return RunDir(path, options.ranks)


def report_chosen(prepared: Prepared, options: Options) -> None:
    """Report the settings that were chosen for the model, and warn of unsuitable ones."""
    if options.on_note and options.ranks.leads:
        for note in prepared.notes:
            options.on_note(note)
    alone_here = options.ranks.size == 1
    found = cautions(prepared.recipe, prepared.lm, prepared.streams) if alone_here else []
    for caution in found:
        warnings.warn(caution, stacklevel=2)


def same_run(out: RunDir, recipe: Recipe, prepared: Prepared) -> None:
    """ValueError if settings, data or weights differ from those the run began with."""
    changed = differences(renewed(out.read("recipe")), json.loads(json.dumps(describe(recipe))))
    changed += differences(out.read("data"), prepared.data, "data")
    if changed:
        raise ValueError(
            f"{out.path} began with other settings or data ({'; '.join(changed[:3])}): "
            "restore them, or choose another `out`"
        )


def measure(recipe: Recipe, lm: LM, out: RunDir, stage: str, options: Options) -> None:
    """Score ``lm``, unless an earlier session of the run did so."""
    if not out.has(f"scores/{stage}"):
        scores = evaluate_once(recipe.all_metrics, lm, options.shared)
        keep_samples(recipe, lm, out, stage, options)
        out.write_scores(stage, scores)
        options.on_eval(stage, scores)


def keep_samples(recipe: Recipe, lm: LM, out: RunDir, stage: str, options: Options) -> None:
    """Write the model's answers to a few questions about the forget set."""
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
    """Unlearn ``prepared.lm``, or load the weights that an earlier session has saved."""
    if recipe.leaves_the_model:
        return
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
    save(recipe, prepared.lm, out, options)
    checkpoints.remove()


def save(recipe: Recipe, lm: LM, out: RunDir, options: Options) -> None:
    """Save the unlearned model; what is measured afterwards is the model of the folder.

    So the weights are rounded to the precision on disk first, and then are float32 again, also
    after adamw-bf16, as they are in a resumed run.
    """
    dtype = dtype_to_save(recipe.save_dtype, lm.model, recipe.model, recipe.revision)
    lm.model.float()
    change = round_weights(lm.model, dtype)
    out.write("saving", {"dtype": str(dtype).removeprefix("torch."), "rounding": change})
    save_model(lm, out.path / "model", options.ranks, dtype)


def train(
    recipe: Recipe,
    prepared: Prepared,
    mask: Mask | None,
    checkpoints: Checkpoints,
    out: RunDir,
    options: Options,
) -> None:
    """Train in place, then apply the weight arithmetic of ``recipe.edit``."""
    model = prepared.lm.model
    last = checkpoints.latest()
    done_before = int(last.name) if last else 0
    out.keep_rows("train", done_before)
    if measured := out.rows(VALIDATION):
        kept = [row for row in measured if last and row["step"] <= done_before]
        out.keep_rows(VALIDATION, len(kept))
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

    # The model has its original weights here, also in a resumed run.
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
            if watch and (note := watch.put()) and options.on_note:
                options.on_note(note)
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
    if options.on_note:
        options.on_note(note)


def watched(recipe: Recipe, lm: LM, trained: Trained, out: RunDir) -> Watch | None:
    """The validation during training, measured once before it begins."""
    if recipe.validation is None:
        return None
    file = out.path / "checkpoints" / "kept.safetensors"
    weights = named_trained(trained.model, trained.pattern)
    watch = Watch(recipe.validation, lm, out, file, weights, recipe.optim.steps)
    if not out.rows(VALIDATION):
        watch(0)
    return watch


def add_cost(
    out: RunDir, *, seconds: float = 0.0, total_seconds: float = 0.0, peak_memory_bytes: int = 0
) -> None:
    """Add to the cost of earlier sessions of the run.

    ``seconds`` and the memory are those of unlearning, ``total_seconds`` is that of everything.
    """
    if not out.ranks.leads:
        return
    own = RunDir(out.path)  # without ranks: another process may have ended
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
    """The run of ``recipe`` in ``folder``, started or continued unless it is finished.

    Its name has a hash of the recipe, its data and the weights before training.
    """
    prepared = prepare(recipe, options.device)
    recipe = prepared.recipe
    weights = weights_hash(prepared.lm.model)
    key = json_hash([describe(recipe), prepared.data, weights])
    path = folder / f"{recipe.name}-{key[:16]}"
    return run_prepared(prepared, path, replace(options, resume=path.exists()))
