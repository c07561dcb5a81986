"""The flags of ``ilu vectors``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ilu.cli.flags import parse
from ilu.cli.help import Positional


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """Angles between task vectors of one model: unlearning, and fine-tuning after it.

    Weights are read a few rows at a time: memory does not depend on the size of the model.

    Example: ilu vectors lab runs/first/model runs/mood/attacks/mood/model --by layer

    Example: ilu vectors lab runs/first/model --cka lab --out runs/first/representations.json

    Args:
        original: the model before unlearning: folder, GGUF file, lab or smollm2.
        unlearned: folder of the unlearned model.
        finetuned: folder of the unlearned model after fine-tuning.
        tuned_original: folder of the original after the same fine-tuning, for two more cosines.
        by: norms and cosines by layer, or by module type over all layers.
        rank: effective rank of the change of every matrix, exp of the entropy of its normalised
            singular values; takes minutes for a model of 1B, hours for 7B.
        cka: also compare hidden states of original and unlearned model, layer by layer, on the
            texts of this file or hub dataset, or of the lab (lab).
        cka_columns: names of columns in these texts, as EXPECTED=PRESENT.
        limit: use at most this many texts.
        out: write the numbers to this JSON file; ilu report shows the CKA of a file
            representations.json in a run directory.
        json: print JSON.
    """

    original: Positional[str]
    unlearned: Positional[str]
    finetuned: Positional[str | None] = None
    tuned_original: str | None = None
    by: Literal["layer", "module"] = "layer"
    rank: bool = False
    cka: str | None = None
    cka_columns: tuple[str, ...] = ()
    limit: int = 200
    out: Path | None = None
    json: bool = False


def read(argv: Sequence[str]) -> Vectors:
    """Parse the flags."""
    return parse(Vectors, "ilu vectors", argv)
