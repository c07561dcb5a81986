"""What loading and training a sharded model cost each of two processes.

    python -m benchmarks.shards [--width 1024]

A Llama with random weights lies on disk in bfloat16 and is trained in float32. Two processes over
gloo load it, whole before it is cut or each its part, and train it by NPO with AdamW. Memory is the
anonymous part of the resident set beyond what the process held before, so pages of files on disk do
not count. Writes benchmarks/results/shards.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.masks import watched
from ilu.data.stream import Feed, Stream
from ilu.methods.forget.npo import NPO
from ilu.methods.retain.likelihood import NLL
from ilu.models.fsdp import shard
from ilu.models.load import load_model, load_tokenizer
from ilu.models.load_sharded import load_sharded
from ilu.runs.memory.model_shape import shape_of
from ilu.runs.memory.peak_sharded import peak_in_parts
from ilu.runs.recipe import Recipe
from ilu.system.atomic import write_json
from ilu.system.distributed import Ranks, joined
from ilu.system.provenance import environment
from ilu.training.fit import Optim, fit
from ilu.training.objective import Term
from ilu.types import LM, Example

RESULTS = Path(__file__).parent / "results" / "shards.json"
PROCESSES = 2
MIB = 2**20
LENGTH, ROWS = 128, 4
OBJECTIVE = {"forget": Term(NPO(0.1), on="forget"), "retain": Term(NLL(), on="retain")}
OPTIM = Optim(lr=1e-5, steps=2)
EXAMPLES = [Example([i * k % 500 + 1 for k in range(LENGTH)], 0) for i in range(1, 17)]


def make(folder: Path, width: int) -> int:
    """Write the model; return the bytes of its weights in float32."""
    config = LlamaConfig(
        vocab_size=16000, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=4,
        num_attention_heads=16, max_position_embeddings=256,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).bfloat16()
    model.save_pretrained(folder)
    load_tokenizer("lab").save_pretrained(folder)
    return 4 * sum(p.numel() for p in model.parameters())


def load(folder: Path, ranks: Ranks, way: str) -> LM:
    """The sharded model, by a way of loading it."""
    if way == "parts":
        return load_sharded(str(folder), ranks)
    lm = load_model(str(folder))
    shard(lm.model, ranks)
    return lm


def measure(folder: Path, way: str) -> None:
    """What each process does: load, and if it was in parts train; print what it took."""
    torch.set_num_threads(1)
    with joined(shard=True) as ranks:
        loading: dict[str, Any] = {}
        training: dict[str, Any] = {}
        with watched(loading):
            lm = load(folder, ranks, way)
        if way == "parts":
            streams = {name: Stream(EXAMPLES, ROWS, 0) for name in ("forget", "retain")}
            with watched(training):
                fit(lm.model, OBJECTIVE, streams, OPTIM, ranks=ranks)
        found = {"rank": ranks.rank, "loading": loading, "training": training}
        print(f"FOUND {json.dumps(found)}", flush=True)


def processes(folder: Path, way: str) -> list[dict[str, Any]]:
    """What each process took."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, f"--nproc-per-node={PROCESSES}", "-m", "benchmarks.shards"]
    asked = [*command, "--folder", str(folder), "--way", way]
    done = subprocess.run(asked, check=True, capture_output=True, text=True)
    lines = [line.partition("FOUND ")[2] for line in done.stdout.splitlines() if "FOUND " in line]
    return sorted(map(json.loads, lines), key=lambda each: each["rank"])


def predicted(folder: Path) -> dict[str, float]:
    """What ``ilu plan`` says of the same training, in MiB for each process."""
    feeds = {name: Feed(lambda tokenizer: EXAMPLES, ROWS) for name in ("forget", "retain")}
    recipe = Recipe(name="x", model=str(folder), data=feeds, objective=OBJECTIVE, optim=OPTIM,
                    metrics={})  # fmt: skip
    shape = shape_of(load_model(str(folder)).model, recipe)
    memory = peak_in_parts(recipe, shape, LENGTH, PROCESSES)
    parts = {name: round(x / MIB) for name, x in memory._asdict().items()}
    return {**parts, "total": round(memory.total / MIB)}


def main() -> None:
    """Measure, print and write; or be one of the processes."""
    parser = argparse.ArgumentParser(description="What shards cost each process.")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--way")
    wanted = parser.parse_args()
    if wanted.folder:
        measure(wanted.folder, wanted.way)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = {
            "weights_mib": round(make(folder, wanted.width) / MIB),
            **{way: processes(folder, way) for way in ("whole", "parts")},
            "predicted_mib": predicted(folder),
        }
    command = " ".join(["python -m benchmarks.shards", *sys.argv[1:]])
    write_json(RESULTS, {"command": command, "environment": environment(), **found})
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
