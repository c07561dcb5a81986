"""The mask of a run: made when the run begins, or a file of the user."""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ilu.data.lazy import joined
from ilu.data.stream import Stream, fingerprint
from ilu.methods.masks.make import Data, Masking, Scoring, choose, score_weights
from ilu.methods.masks.score_storage import StoredScores, store_scores
from ilu.methods.masks.statistics import counts, density, distribution, total
from ilu.methods.masks.storage import MaskFile, load_mask, save_mask
from ilu.models.load import weights_hash
from ilu.runs.recipe import Recipe
from ilu.runs.run_dir import MASK
from ilu.system.atomic import json_hash, new_file, write_json
from ilu.system.locks import alone
from ilu.system.provenance import code_hash
from ilu.system.record import describe, differences, kind_of, with_stable_names
from ilu.system.scores import Progress
from ilu.types import LM, Mask


def given_mask(recipe: Recipe, model: nn.Module) -> Mask | None:
    """The mask that the recipe names as a file; ValueError if it is for other weights."""
    if not isinstance(recipe.mask, str):
        return None
    path = Path(recipe.mask)
    scored = getattr(torch, MaskFile(path).record.get("precision", "float32"))
    return load_mask(path, model, weights_hash(model, scored))


def mask_of(recipe: Recipe, model: nn.Module, run: Path) -> Mask | None:
    """The mask of a run that has begun: its own, or the user's file."""
    if recipe.mask is None:
        return None
    return load_mask(run / MASK if isinstance(recipe.mask, Masking) else Path(recipe.mask), model)


def begin_mask(
    mask: str | Masking,
    lm: LM,
    data: Data,
    run: Path,
    progress: Progress,
    shared: Path | None = None,
) -> None:
    """Make the mask unless it is a file, and write its description to the run's folder.

    Runs with the same mask settings, weights and data share one mask through ``shared``.
    """
    path = Path(mask) if isinstance(mask, str) else run / MASK
    if isinstance(mask, Masking):
        made = path if shared is None else shared / f"mask-{mask_key(mask, lm, data)}.safetensors"
        with nullcontext() if shared is None else alone(made, wait=True):
            if not made.is_file():
                make_masks(mask.scoring, [(mask.fraction, made)], mask.choice, lm, data, progress)
        if made != path:
            with new_file(path) as copy:
                shutil.copyfile(made, copy)
    write_json(run / "mask.json", summary(path))


def mask_key(mask: Masking, lm: LM, data: Data) -> str:
    """Hash of everything that a mask depends on."""
    read = {name: fingerprint(examples) for name, examples in data.items()}
    return json_hash([describe(mask), weights_hash(lm.model), read, code_hash()])


def mask_data(recipe: Recipe, streams: Mapping[str, Stream]) -> Data:
    """The examples of every forget topic, and those of the retain set."""
    return {
        role: joined([s.examples for name, s in streams.items() if recipe.data[name].role == role])
        for role in ("forget", "retain")
    }


def make_masks(
    scoring: Scoring,
    paths: Sequence[tuple[float | None, Path]],
    choice: Any,
    lm: LM,
    data: Data,
    progress: Progress = lambda name, done, total: None,
    store: Path | None = None,
) -> None:
    """Score the weights once and write a mask for every fraction.

    With ``store`` the scores are written to that folder, from which a later call with the same
    model, data and scoring reads them; without it they stay in memory.
    """
    if choice == "row" and transposed(lm.model):
        raise ValueError(
            "the rows of this model's layers are inputs, not outputs: use `per` tensor"
        )
    began = time.monotonic()
    source = {
        "scoring": describe(scoring),
        "model": weights_hash(lm.model),
        "precision": str(next(lm.model.parameters()).dtype).removeprefix("torch."),
        "data": {name: fingerprint(examples) for name, examples in data.items() if examples},
    }
    if store and store.exists():
        scores, scales = stored(store, source)
    else:
        found = score_weights(scoring, lm.model, data, progress)
        scales = found.scales._asdict() if found.scales else None
        made = {**source, "scales": scales}
        scores = store_scores(found.scores, store, made) if store else dict(found.scores).items()
    sizes = distribution(scores)._asdict()
    record = {**source, "choice": describe(choice), "scores": sizes, "scales": scales}
    masks = choose(scores, [fraction for fraction, _ in paths], choice)
    for (fraction, path), mask in zip(paths, masks, strict=True):
        seconds = round(time.monotonic() - began, 3)
        save_mask(path, mask, {**record, "fraction": fraction, "seconds": seconds})


def transposed(model: nn.Module) -> bool:
    """Whether linear layers have their inputs as rows, as in GPT-2."""
    from transformers.pytorch_utils import Conv1D

    return any(isinstance(module, Conv1D) for module in model.modules())


def stored(folder: Path, source: Mapping[str, Any]) -> tuple[StoredScores, dict[str, Any] | None]:
    """Stored scores and their scales; ValueError if they are of another ``source``."""
    found = StoredScores(folder)
    record = found.record
    scales = record.pop("scales", None)
    if changed := differences(with_stable_names(record), json.loads(json.dumps(source)), "made"):
        raise ValueError(
            f"the scores in {folder} have another source ({changed[0]}): give the same "
            "model, data and settings, or another folder"
        )
    return found, scales


def summary(path: Path) -> dict[str, Any]:
    """The description of a mask in a report: its score, and its density by module and block."""
    stored = MaskFile(path)
    found, record = counts(stored), stored.record
    scoring = record.get("scoring") or {}
    return {
        "score": kind_of(scoring.get("score") or {"type": "unknown"}),
        "fraction": total(found.values()).density,
        "density": density(found),
        "quantiles": (record.get("scores") or {}).get("quantiles"),
        "scales": record.get("scales"),
        "seconds": record.get("seconds"),
    }
