"""The flags of ``ilu landscape``."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, make_dataclass
from inspect import cleandoc
from pathlib import Path
from typing import Literal

from ilu.cli.flags import parse, subset
from ilu.cli.help import Positional
from ilu.recipes.suite_request import SuiteRequest

Kind = Literal["line", "plane", "random"]
MEASURED = tuple(field.name for field in fields(SuiteRequest) if field.name != "original")
"""Settings of a suite that are flags here; ``original`` is an argument of the command."""


@dataclass(frozen=True, kw_only=True)
class Landscape:
    """Measure scores around the unlearned model, which is at 0, or between it and others.

    Requires memory for three copies of the weights in float32.

    Example: ilu landscape lab runs/first/model --suite lab --out runs/first/landscape.json

    Example: ilu landscape lab u/model u/attacks/mood/model --suite lab --out plane.json

    Args:
        original: the model before unlearning: folder, hub id, GGUF file, smollm2 or lab; it is
            at 1.
        unlearned: folder or hub id of the unlearned model.
        finetuned: folder or hub id of the unlearned model after an attack.
        kind: line through original and unlearned, plane through these and finetuned, or two random
            directions with filter-wise normalisation; if left out, plane with finetuned, else line.
        suite: suite that is measured at every point; see ilu evaluate --help.
        points: number of points on each axis; 13 on a line, 9 times 9 on a plane.
        seed: seed of the random directions.
        out: write the scores to this JSON file, and a plot of each score to an .svg file in the
            same folder; ilu report shows a file landscape.json in a run directory.
        device: cpu, cuda, mps.
    """

    original: Positional[str]
    unlearned: Positional[str]
    finetuned: Positional[str | None] = None
    kind: Kind | None = None
    suite: str = "likelihood"
    points: int | None = None
    seed: int = 0
    out: Path
    device: str = "cpu"


def read(argv: Sequence[str]) -> tuple[Landscape, SuiteRequest]:
    """Parse the flags: those of the landscape, and those of what is measured."""
    parts = [("landscape", Landscape), ("measured", subset(SuiteRequest, MEASURED))]
    kind = make_dataclass("Flags", parts, frozen=True, kw_only=True)
    description = cleandoc((Landscape.__doc__ or "").split("Args:")[0])
    found = parse(kind, "ilu landscape", argv, description)
    return found.landscape, SuiteRequest(**vars(found.measured))
