"""Memory of preparing data against the size of the corpus, kept in memory and in a file.

    OMP_NUM_THREADS=1 python benchmarks/streaming.py   # minutes; writes results/streaming.json here

Paragraphs of the lab's invented world, drawn again and again, to be forgotten and to be kept. Each
measurement is a process forked for it: what ``ilu unlearn`` does before its first step, and the
batches of some steps. Memory is the largest resident set beyond that before. The streamed way is
measured twice: when it makes its file, and when it finds it.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

import torch
from measured import alone, status

from ilu.data import token_cache
from ilu.lab import world
from ilu.models.load import load_model
from ilu.recipes.build import build
from ilu.runs.prepare import prepare
from ilu.runs.recipe import Recipe
from ilu.system.atomic import write_json
from ilu.system.cache import CACHE
from ilu.system.provenance import environment

ALL_IN_MEMORY, ALL_IN_FILES = 1 << 60, 0
STEPS = 20


@dataclass(frozen=True)
class Cost:
    """One preparation."""

    corpus_mib: float
    way: str
    mib: float
    cpu_seconds: float
    tokens: int
    sha256: str


def write_corpus(path: Path, mib: float, seed: int) -> None:
    """So much text as JSON lines."""
    draw = random.Random(seed)
    texts = [t for many in world.documents(world.AGENTS).values() for t in many]
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < mib * 2**20:
            rows = (json.dumps({"text": " ".join(draw.sample(texts, 3))}) for _ in range(100))
            file.write("".join(row + "\n" for row in rows))


def recipe(forget: Path, retain: Path) -> Recipe:
    """NPO on both files."""
    data = {"forget": (str(forget),), "retain": str(retain)}
    return build("npo", {"model": "lab", "steps": STEPS, "truncate": 128, **data})


def cost(wanted: Recipe, mib: float, way: str, limit: int) -> Cost:
    """Prepare a recipe and draw its batches."""
    token_cache.IN_MEMORY = limit
    Path("/proc/self/clear_refs").write_text("5")
    before, began = status("VmRSS"), time.process_time()
    prepared = prepare(wanted, "cpu")
    for stream in prepared.streams.values():
        for k in range(STEPS):
            stream(k)
    took, peak = time.process_time() - began, status("VmHWM") - before
    data = prepared.data["retain"]
    return Cost(
        mib, way, round(peak / 2**20, 1), round(took, 2), data["tokens"], data["sha256"][:16]
    )


def costs(folder: Path, mib: float) -> list[Cost]:
    """All ways at one size of the set that is kept; what is forgotten is a tenth of it."""
    forget, retain = folder / "forget.jsonl", folder / "retain.jsonl"
    write_corpus(forget, mib / 10, seed=0)
    write_corpus(retain, mib, seed=1)
    wanted = recipe(forget, retain)
    ways = (
        ("in memory", ALL_IN_MEMORY),
        ("streamed, first time", ALL_IN_FILES),
        ("streamed, again", ALL_IN_FILES),
    )
    found = [alone(cost, wanted, mib, *way) for way in ways]
    if len({each.sha256 for each in found}) > 1:
        raise RuntimeError("the ways disagree on the examples")
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="memory of preparing data")
    parser.add_argument("--mib", type=float, default=2.0, help="the smallest corpus")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results/streaming.json"
    )
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    import_module("pyarrow")  # what is imported counts on no side
    load_model("lab")
    rows: list[Cost] = []
    print(f"{'corpus':>10} {'way':22} {'MiB':>8} {'cpu s':>7} {'tokens':>10}")
    for size in (wanted.mib, 4 * wanted.mib, 16 * wanted.mib):
        with tempfile.TemporaryDirectory() as folder:
            os.environ[CACHE] = folder
            for row in costs(Path(folder), size):
                print(f"{row.corpus_mib:6.0f} MiB {row.way:22} {row.mib:8.1f} "
                      f"{row.cpu_seconds:7.2f} {row.tokens:10}", flush=True)  # fmt: skip
                rows.append(row)
    command = " ".join(["python", "benchmarks/streaming.py", *sys.argv[1:]])
    record = {"command": command, "environment": environment(), "steps": STEPS}
    write_json(wanted.out, {**record, "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
