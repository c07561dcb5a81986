"""The models of the study, and where their runs are."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ilu.models.named import NEVER

ORIGINAL = "original"
SHORT = {"tar": "rmu-tar", "sam": "rmu-sam"}
"""Robust training by its own name -> the recipe that is studied."""
QUESTIONS = 240
TINY_QUESTIONS, TINY_STEPS = 8, 2
"""Sizes that only show whether the study works."""


class Cell(NamedTuple):
    """A method, followed by UNDO unless ``noise`` is None."""

    method: str
    noise: float | None = None
    steps: int | None = None

    @property
    def label(self) -> str:
        """The name of its runs."""
        undo = "" if self.noise is None else f"-undo-{self.noise:g}-{self.steps}"
        return f"{self.method}{undo}"


def cells(methods: Sequence[str], noise: Sequence[float], steps: Sequence[int]) -> list[Cell]:
    """The models without unlearning, then each method alone and with every setting of UNDO."""
    methods = [SHORT.get(m, m) for m in methods]
    undone = [Cell(m, share, count) for m in methods for count in steps for share in noise]
    return [Cell(ORIGINAL), Cell(NEVER), *map(Cell, methods), *undone]


def place(out: Path, cell: Cell, seed: int) -> Path:
    """Folder of the run that makes a model and attacks it."""
    return out / f"{cell.label}-seed{seed}"


def attacked_place(out: Path, cell: Cell, seed: int) -> Path:
    """Folder of the run with the further attacks on that model."""
    return out / f"{cell.label}-seed{seed}-attacks"
