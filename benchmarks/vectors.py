"""What the angles of task vectors cost: models of 1e9 weights in bfloat16, read from shards.

    python -m benchmarks.vectors [--params 1e9]

Three models with random weights and the shapes of a Llama lie on disk; norms and cosines of both
task vectors are computed from them. Memory is the anonymous part of the resident set beyond what
the process held before, so pages of files on disk do not count. Writes
benchmarks/results/vectors.json.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.masks import LAYER, alone, watched
from ilu.evals.geometry.task_vectors import cosines, grams, grouped, known, norms
from ilu.models.weight_files import FileWeights
from ilu.system.atomic import write_json
from ilu.system.provenance import environment

RESULTS = Path(__file__).parent / "results" / "vectors.json"
MODELS = ("original", "unlearned", "finetuned")
WIDTH, INNER, WORDS = 2048, 5632, 32000
MATRICES = {
    "self_attn.q_proj": (WIDTH, WIDTH), "self_attn.k_proj": (WIDTH, WIDTH),
    "self_attn.v_proj": (WIDTH, WIDTH), "self_attn.o_proj": (WIDTH, WIDTH),
    "mlp.gate_proj": (INNER, WIDTH), "mlp.up_proj": (INNER, WIDTH), "mlp.down_proj": (WIDTH, INNER),
}  # fmt: skip


def shapes(params: float) -> Iterator[tuple[str, dict[str, tuple[int, int]]]]:
    """Shard -> its weights: a shard for each block, one for what is outside."""
    outside = {f"{n}.weight": (WORDS, WIDTH) for n in ("model.embed_tokens", "lm_head")}
    yield "outside", outside
    for i in range(round((params - 2 * WORDS * WIDTH) / LAYER)):
        yield f"block-{i:03d}", {f"model.layers.{i}.{n}.weight": s for n, s in MATRICES.items()}


def make(folder: Path, params: float) -> dict[str, Any]:
    """Write the models: each is the one before with a little noise added."""
    draw = torch.Generator().manual_seed(0)
    pool = torch.randn(3, WORDS * WIDTH, generator=draw).mul_(0.02)
    count = 0
    for shard, weights in shapes(params):
        for k, model in enumerate(MODELS):
            scales = torch.tensor([1.0, 0.05 * (k > 0), 0.02 * (k > 1)])[:, None]
            held = {
                name: (pool[:, : h * w] * scales).sum(0).bfloat16().view(h, w)
                for name, (h, w) in weights.items()
            }
            (folder / model).mkdir(exist_ok=True)
            save_file(held, folder / model / f"{shard}.safetensors")
        count += sum(h * w for h, w in weights.values())
    index = {n: f"{shard}.safetensors" for shard, weights in shapes(params) for n in weights}
    for model in MODELS:
        write_json(folder / model / "model.safetensors.index.json", {"weight_map": index})
    return {"weights": count, "one_model_mib": round(2 * count / 2**20)}


def measure(folder: Path, params: float) -> dict[str, Any]:
    """Norms and cosines, overall."""
    found: dict[str, Any] = {}
    models = {name: FileWeights(folder / name) for name in MODELS}
    with watched(found):
        total = grouped(grams(models), lambda name: "")[""]
        taus = known(models)
        found |= {"norms": norms(total, taus), "cosines": cosines(total, taus)}
    largest = max(h * w for _, shard in shapes(params) for h, w in shard.values())
    found["two_largest_tensors_in_float32_mib"] = round(2 * 4 * largest / 2**20)
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="What the angles of task vectors cost.")
    parser.add_argument("--params", type=float, default=1e9)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pieces = {p.__name__: alone(p, folder, wanted.params) for p in (make, measure)}
    write_json(RESULTS, {"environment": environment(), **pieces})
    print(json.dumps(pieces, indent=1))


if __name__ == "__main__":
    main()
