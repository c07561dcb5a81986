"""The flags of ``ilu demo``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ilu.cli.flags import parse


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Unlearn the lab's model with four methods, then attack each by fine-tuning on six tasks.

    Example: ilu demo --out demo

    Args:
        out: new folder for summary.json, report.html and one run directory per model.
        quick: a smoke test with too few steps for meaningful numbers.
        seed: random seed.
        device: cpu, cuda, mps.
        resume: continue an interrupted demo.
    """

    out: Path
    quick: bool = False
    seed: int = 0
    device: str = "cpu"
    resume: bool = False


def read(argv: Sequence[str]) -> Demo:
    """Parse the flags."""
    return parse(Demo, "ilu demo", argv)
