"""``ilu mask SCORE``: score the weights of a model and keep the largest."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ilu.cli.arguments.mask import Making
from ilu.cli.flags import parse
from ilu.cli.mask_show import show_mask
from ilu.cli.signals import interruptible
from ilu.cli.terminal import progress
from ilu.data.counterparts import Refused
from ilu.data.lazy import joined
from ilu.data.stream import check_lengths
from ilu.lab.sources import Documents
from ilu.methods.forget.idk import Refusal
from ilu.methods.masks.make import Scoring
from ilu.methods.masks.score_storage import StoredScores
from ilu.methods.masks.scores import Attribution, Named
from ilu.methods.masks.storage import MaskFile
from ilu.methods.masks.top_k import check_fractions
from ilu.methods.retain.likelihood import NLL
from ilu.models.blocks import context_length, text_config
from ilu.models.load import load_model
from ilu.models.mlp import mlp_outputs_resolved
from ilu.models.named import LAB
from ilu.recipes.facts_data import retain_name
from ilu.recipes.mask_names import SUMMARIES
from ilu.recipes.masks import Kind, Layers, choice_of, mask_kind
from ilu.recipes.user_data import dataset
from ilu.runs.mask_stage import make_masks
from ilu.system.errors import Stopped
from ilu.system.locks import alone
from ilu.types import LM, Example, Source


def make_mask(name: str, argv: Sequence[str]) -> None:
    """Carry out ``ilu mask SCORE``."""
    kind = mask_kind(name)
    wanted, score = read(name, kind, argv)
    paths = outputs(wanted, whole_layers=kind.score is Layers)
    lm = load_model(wanted.model, device=wanted.device, dtype=getattr(torch, wanted.precision))
    if isinstance(score, Named):
        score = Named(mlp_outputs_resolved(lm.model, score.pattern))
    choice = choice_of(kind, wanted.per, heads_of(lm.model) if wanted.per == "heads" else None)
    scoring = Scoring(
        score=score,
        forget_loss=Refusal() if wanted.refusal else NLL(),
        retain_loss=NLL(),
        batch_size=wanted.batch_size,
        reduction=wanted.reduction,
        limit=wanted.limit,
        parameters=wanted.parameters,
    )
    with interruptible("the same command, from the beginning") as stop, progress() as shown:

        def watched(piece: str, done: int, total: int) -> None:
            shown(piece, done, total)
            if stop():
                raise Stopped

        with alone(wanted.out):
            make_masks(scoring, paths, choice, lm, data(wanted, lm), watched, wanted.scores)
    for _, path in paths:
        show_mask(MaskFile(path))


def heads_of(model: Any) -> int:
    """Heads with keys of their own."""
    for name in ("num_key_value_heads", "num_attention_heads"):
        if getattr(text_config(model), name, None):
            return int(getattr(text_config(model), name))
    raise ValueError("this model's configuration names no attention heads: choose another --per")


def read(name: str, kind: Kind, argv: Sequence[str]) -> tuple[Making, Attribution]:
    """Parse the common flags and those of the score."""
    fields = [("making", Making), ("score", kind.score)]
    flags = dataclasses.make_dataclass("Flags", fields, frozen=True, kw_only=True)
    flags.__doc__ = f"{name}: {SUMMARIES[name]}."
    found: Any = parse(flags, f"ilu mask {name}", argv)
    return found.making, found.score.named() if kind.score is Layers else found.score


def outputs(wanted: Making, *, whole_layers: bool) -> list[tuple[float | None, Path]]:
    """The file of each fraction; refuses what cannot be before anything is loaded."""
    fractions, out = wanted.fraction, wanted.out
    if whole_layers and (fractions or wanted.per):
        raise ValueError("this score takes whole layers: leave out --fraction and --per")
    if not fractions and not whole_layers:
        raise ValueError("--fraction is missing: the share of the weights that may move")
    check_fractions(fractions)
    paths: list[tuple[float | None, Path]] = [(fractions[0] if fractions else None, out)]
    if len(fractions) > 1:
        paths = [(f, out.with_name(f"{out.stem}-{f}{out.suffix}")) for f in fractions]
    files = [*(path for _, path in paths), *([wanted.scores] if wanted.scores else [])]
    twice = [path for path in files if files.count(path) > 1]
    if twice:
        raise ValueError(f"{twice[0]} would be written twice: give each fraction once")
    for _, path in paths:
        if path.exists():
            raise ValueError(f"{path} exists already: choose another name, or delete it")
    if wanted.scores and wanted.scores.exists():
        _ = StoredScores(wanted.scores).record  # refuses what is no folder of scores
    out.parent.mkdir(parents=True, exist_ok=True)
    return paths


def data(wanted: Making, lm: LM) -> Mapping[str, Sequence[Example]]:
    """The forget and retain sets, from the user or the lab."""
    lab = wanted.model == LAB
    retain = (retain_name(wanted.retain, wanted.forget),) if wanted.retain else ()
    forget = sources(wanted.forget, wanted.forget_columns, wanted.truncate)
    kept = sources(retain, wanted.retain_columns, wanted.truncate)
    forget = forget or ([Documents("agents")] if lab else [])
    kept = kept or ([Documents("people")] if lab else [])
    if wanted.refusal:
        forget = [Refused(source) for source in forget]
    found = {
        name: joined([source(lm.tokenizer) for source in each])
        for name, each in (("forget", forget), ("retain", kept))
    }
    for name, examples in found.items():
        check_lengths(examples, context_length(lm.model), f"--{name}")
    return found


def sources(places: Sequence[str], columns: Sequence[str], truncate: int | None) -> list[Source]:
    """The user's data."""
    return [dataset(place, columns, truncate) for place in places]
