"""The flags of ``ilu oracle``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ilu.cli.flags import parse
from ilu.cli.help import Positional


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """Fine-tune a model on the retain split alone, as a reference for ilu evaluate.

    Train it as the model that is to forget was trained, but for the forget set. A second call with
    the same settings, data and weights finds the first one's model and trains nothing.

    Example: ilu oracle ./base --retain tofu:retain90 --steps 1000 --lr 1e-5 --out oracles

    Args:
        model: the model before any fine-tuning: folder, hub id, GGUF file, smollm2 or lab.
        retain: what it may see: file, hub dataset ORG/NAME:CONFIG:SPLIT, or short name.
        retain_columns: names of columns that differ, as wanted=present.
        truncate: cut longer examples to this many tokens.
        steps: optimiser steps.
        lr: peak learning rate.
        batch_size: examples per step.
        micro_batch: examples per forward pass; lower it to save memory, results stay the same.
        warmup: steps of linear warm-up.
        schedule: learning rate after the warm-up.
        weight_decay: AdamW's.
        seed: of the order of the data.
        out: folder of oracles; each has a folder of its own in it, named by what it was made from.
        device: cpu, cuda, cuda:1, mps.
        save_every: steps between checkpoints, so that an interrupted training continues.
    """

    model: Positional[str]
    retain: str
    retain_columns: tuple[str, ...] = ()
    truncate: int | None = None
    steps: int
    lr: float
    batch_size: int = 16
    micro_batch: int | None = None
    warmup: int = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    weight_decay: float = 0.0
    seed: int = 0
    out: Path = Path("oracles")
    device: str = "cpu"
    save_every: int | None = None


def read(argv: Sequence[str]) -> Oracle:
    """Parse the flags."""
    return parse(Oracle, "ilu oracle", argv)
