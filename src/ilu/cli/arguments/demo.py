"""The flags of ``ilu demo``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ilu.cli.flags import parse


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Unlearn a model with four methods, attack each by fine-tuning and relearning, and report.

    Example: ilu demo --out demo

    Args:
        model: lab, the small model of the package, which forgets invented people and is fine-tuned
            on six tasks; or smollm2, a real model of 135 million weights, which forgets chemical
            symbols and is fine-tuned on two tasks.
        out: new folder for summary.json, report.html and one run directory per model.
        quick: a smoke test with too few steps for meaningful numbers.
        seed: random seed.
        device: cpu, cuda, mps.
        resume: continue an interrupted demo.
    """

    model: Literal["lab", "smollm2"] = "lab"
    out: Path
    quick: bool = False
    seed: int = 0
    device: str = "cpu"
    resume: bool = False


def read(argv: Sequence[str]) -> Demo:
    """Parse the flags."""
    return parse(Demo, "ilu demo", argv)
