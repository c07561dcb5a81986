"""What a mask costs: scoring and selection on a large model, and selection against a sort.

    python benchmarks/masks.py [--params 1.1e9] [--sorted 2.5e8]

A Llama with random weights in bfloat16 is scored by WAGLE, the scores go to disk in shards, and a
tenth of them is selected and written as a mask. The other way, on the same scores of a smaller
model: all scores in one vector, its argsort, and the argsort of that, which is how the released
code of WAGLE ranks. Each piece runs in a process of its own; memory is the anonymous part of the
resident set beyond what the process held before, so pages of files on disk do not count. Writes
benchmarks/results/masks.json.
"""

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ilu.methods.masks.make import Scoring, score_weights
from ilu.methods.masks.score_storage import StoredScores, store_scores
from ilu.methods.masks.storage import save_mask
from ilu.methods.masks.top_k import top_fraction
from ilu.methods.masks.wagle import Wagle
from ilu.methods.retain.likelihood import NLL
from ilu.system.atomic import write_json
from ilu.system.provenance import environment
from ilu.types import Example

RESULTS = Path(__file__).parent / "results" / "masks.json"
FRACTION = 0.1
LAYER = 4 * 2048**2 + 3 * 2048 * 5632
"""Weights of a block of this shape, but for its norms."""


def anonymous() -> int:
    """Bytes of memory that belong to no file."""
    status = Path("/proc/self/status").read_text()
    return next(int(x.split()[1]) for x in status.splitlines() if x.startswith("RssAnon")) * 1024


@contextmanager
def watched(found: dict[str, Any]) -> Generator[None]:
    """Note the seconds and the largest growth of anonymous memory."""
    before, ended = anonymous(), threading.Event()
    peak = before

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.02):
            peak = max(peak, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began, cpu = time.monotonic(), time.process_time()
    yield
    found["seconds"] = round(time.monotonic() - began, 2)
    found["cpu_seconds"] = round(time.process_time() - cpu, 2)
    ended.set()
    watcher.join()
    found["peak_mib"] = round((max(peak, anonymous()) - before) / 2**20)


def score(folder: Path, params: float) -> dict[str, Any]:
    """Score a model of about so many weights and store the scores."""
    layers = max(1, round((params - 2 * 32000 * 2048) / LAYER))
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=16,
        dtype="bfloat16",
    )
    torch.set_default_dtype(torch.bfloat16)
    model = LlamaForCausalLM(config).eval()
    torch.set_default_dtype(torch.float32)
    draw = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 32000, (4, 64), generator=draw).tolist()
    examples = [Example(row, prompt=0) for row in rows]
    data = {"forget": examples[:2], "retain": examples[2:]}
    count = sum(p.numel() for p in model.parameters())
    found: dict[str, Any] = {"weights": count, "model_mib": round(2 * count / 2**20)}
    with watched(found):
        scoring = Scoring(score=Wagle(), forget_loss=NLL(), retain_loss=NLL(), batch_size=2)
        store_scores(score_weights(scoring, model, data).scores, folder / "scores")
    return found


def select(folder: Path, params: float) -> dict[str, Any]:
    """Select from stored scores and write the mask."""
    found: dict[str, Any] = {}
    with watched(found):
        mask = top_fraction(StoredScores(folder / "scores"), FRACTION)
        save_mask(folder / "mask.safetensors", mask, {})
    return found


def select_by_sort(folder: Path, params: float) -> dict[str, Any]:
    """The same by ranking all scores with two sorts."""
    found: dict[str, Any] = {}
    with watched(found):
        parts = list(StoredScores(folder / "scores"))
        x = torch.cat([part.flatten() for _, part in parts])
        ranks = torch.argsort(torch.argsort(-x.abs()))
        kept = (ranks < round(FRACTION * len(x))).split([part.numel() for _, part in parts])
        masks = ((name, k.view(p.shape)) for (name, p), k in zip(parts, kept, strict=True))
        save_mask(folder / "sorted.safetensors", masks, {})
    return found


def alone(piece: Callable[[Path, float], dict[str, Any]], folder: Path, params: float) -> Any:
    """Run a piece in a process of its own."""
    with get_context("spawn").Pool(1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return pool.apply(piece, (folder, params))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="What a mask costs.")
    parser.add_argument("--params", type=float, default=1.1e9)
    parser.add_argument("--sorted", type=float, default=2.5e8)
    wanted = parser.parse_args()
    found: dict[str, Any] = {"environment": environment()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found["large"] = {p.__name__: alone(p, folder, wanted.params) for p in (score, select)}
    with tempfile.TemporaryDirectory() as name:
        folder, pieces = Path(name), (score, select, select_by_sort)
        found["against_a_sort"] = {p.__name__: alone(p, folder, wanted.sorted) for p in pieces}
    ours, theirs = (found["against_a_sort"][k] for k in ("select", "select_by_sort"))
    found["speedup"] = round(theirs["cpu_seconds"] / ours["cpu_seconds"], 2)
    found["memory_ratio"] = round(ours["peak_mib"] / theirs["peak_mib"], 3)
    write_json(RESULTS, found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
