"""``ilu mask SCORE``: score the weights of a model and keep the largest."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from ilu.cli.interrupt import interruptible
from ilu.cli.mask_show import show_mask
from ilu.cli.parse import parse
from ilu.cli.show import progress
from ilu.data import check_lengths
from ilu.forget.refusal import Refusal
from ilu.forward import context_length
from ilu.lab.sources import Documents
from ilu.masking import make_masks
from ilu.masks.attribution import Attribution
from ilu.masks.evidence import Reduction
from ilu.masks.files import MaskFile
from ilu.masks.make import Scoring
from ilu.masks.select import Per
from ilu.masks.units import Unit
from ilu.models import LAB, load_model
from ilu.recipes.masks import Kind, Layers, choice_of, mask_kind
from ilu.recipes.own import dataset
from ilu.retain.likelihood import NLL
from ilu.sources.refusals import Refused
from ilu.train import Stopped
from ilu.types import LM, Example, Source


@dataclasses.dataclass(frozen=True, kw_only=True)
class Making:
    """What a mask is made from.

    Args:
        model: folder, hub id, or lab, which brings its own data.
        forget: what is to be forgotten: a file or hub dataset ORG/NAME:CONFIG:SPLIT.
        retain: what is to be kept, for scores that ask for it.
        forget_columns: names of columns that differ, as wanted=present.
        retain_columns: the same for the retain set.
        truncate: cut longer examples to this many tokens.
        fraction: share of the scored weights that may move; repeat the flag for several masks from
            the same scores, which then have it in their names.
        out: the mask; with several fractions NAME.safetensors becomes NAME-0.1.safetensors and so
            on.
        per: rank the weights of the whole model, or of each layer, tensor or row; or rank whole
            heads, neurons or modules. Left out, as is usual for the score.
        refusal: take the gradient of refusing the forget set, for methods that learn to refuse.
        reduction: mean of all examples, or sum over batches of their token means, as in WAGLE's
            code, whose mu is for that.
        parameters: regular expression: only weights whose name matches are scored.
        batch_size: examples at a time.
        limit: use the first so many examples of each set.
        precision: of the model; sums are float32 in any case.
        scores: put the scores into this folder instead of memory, for large models, and keep them.
        device: cpu, cuda, mps.
    """

    model: str
    out: Path
    forget: str | None = None
    retain: str | None = None
    forget_columns: tuple[str, ...] = ()
    retain_columns: tuple[str, ...] = ()
    truncate: int | None = None
    fraction: tuple[float, ...] = ()
    per: Per | Unit | None = None
    refusal: bool = False
    reduction: Reduction = "mean"
    parameters: str = ""
    batch_size: int = 4
    limit: int | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    scores: Path | None = None
    device: str = "cpu"


def make_mask(name: str, argv: Sequence[str]) -> None:
    """Carry out ``ilu mask SCORE``."""
    kind = mask_kind(name)
    wanted, score = read(name, kind, argv)
    paths = outputs(wanted, needs_fraction=kind.score is not Layers)
    choice_of(kind, wanted.per, heads=1)
    lm = load_model(wanted.model, device=wanted.device, dtype=getattr(torch, wanted.precision))
    model: Any = lm.model
    heads = getattr(model.config, "num_key_value_heads", model.config.num_attention_heads)
    scoring = Scoring(
        score=score,
        forget_loss=Refusal() if wanted.refusal else NLL(),
        retain_loss=NLL(),
        batch_size=wanted.batch_size,
        reduction=wanted.reduction,
        limit=wanted.limit,
        parameters=wanted.parameters,
    )
    with interruptible("the same command") as stop, progress() as shown:

        def watched(piece: str, done: int, total: int) -> None:
            shown(piece, done, total)
            if stop():
                raise Stopped

        make_masks(
            scoring,
            paths,
            choice_of(kind, wanted.per, heads),
            lm,
            data(wanted, lm),
            watched,
            wanted.scores,
        )
    for _, path in paths:
        show_mask(MaskFile(path))


def read(name: str, kind: Kind, argv: Sequence[str]) -> tuple[Making, Attribution]:
    """Parse the common flags and those of the score."""
    fields = [("making", Making), ("score", kind.score)]
    whole = dataclasses.make_dataclass("Flags", fields, frozen=True, kw_only=True)
    whole.__doc__ = f"{name}: {kind.summary}."
    found: Any = parse(whole, f"ilu mask {name}", argv)
    return found.making, found.score.named() if kind.score is Layers else found.score


def outputs(wanted: Making, *, needs_fraction: bool) -> list[tuple[float | None, Path]]:
    """The file of each fraction; refuses what is there already."""
    fractions: tuple[float | None, ...] = wanted.fraction
    if not fractions:
        if needs_fraction:
            raise ValueError("--fraction is missing: the share of the weights that may move")
        fractions = (None,)
    out = wanted.out
    paths: list[tuple[float | None, Path]] = [(fractions[0], out)]
    if len(fractions) > 1:
        paths = [(f, out.with_name(f"{out.stem}-{f:g}{out.suffix}")) for f in fractions]
    for path in (*(p for _, p in paths), *([wanted.scores] if wanted.scores else [])):
        if path.exists():
            raise ValueError(f"{path} exists already: choose another name, or delete it")
    return paths


def data(wanted: Making, lm: LM) -> Mapping[str, Sequence[Example]]:
    """The forget and retain sets, from the user or the lab."""
    lab = wanted.model == LAB
    places: dict[str, Source | None] = {
        "forget": source(wanted.forget, wanted.forget_columns, wanted.truncate)
        or (Documents("agents") if lab else None),
        "retain": source(wanted.retain, wanted.retain_columns, wanted.truncate)
        or (Documents("people") if lab else None),
    }
    if wanted.refusal and places["forget"]:
        places["forget"] = Refused(places["forget"])
    found = {name: place(lm.tokenizer) for name, place in places.items() if place}
    for name, examples in found.items():
        check_lengths(examples, context_length(lm.model), f"--{name}")
    return found


def source(place: str | None, columns: Sequence[str], truncate: int | None) -> Source | None:
    """The user's data, if any was given."""
    return dataset(place, columns, truncate) if place else None
