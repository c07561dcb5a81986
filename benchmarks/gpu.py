"""Training steps on one GPU: tokens per second, share of the matmul peak, peak memory.

    python benchmarks/gpu.py                # under 9 minutes; writes $OUT/gpu.json, or --out FILE
    python benchmarks/gpu.py --toy          # seconds, on any processor: tries the script itself

Models have random weights and the shapes of Llama-3.2-1B and Mistral-7B, so nothing is downloaded;
torch, transformers, safetensors, jaxtyping, numpy and, for LoRA, peft are all it needs. Every row
is written as soon as it is measured. A row that runs out of memory says so and takes no number; one
that needs a library that is missing, likewise; rows that the time does not reach are listed.

Weights are float32 under bfloat16 autocast, or bfloat16 throughout with ``adamw-bf16`` (torchao);
below LoRA they are bfloat16. A step's operations are counted from the objective: 2 for each weight
and token of a forward pass, 4 of a backward pass, over the blocks and the output layer, without
attention's own products. What is computed twice to save memory is not counted twice, so a saving
shows as a lower share. The reference's log-probabilities are read in the first step, which is not
timed. The time is that of the fastest step, memory the most that was allocated. The output layer is
read by Triton kernels where they work, which the record says, except in the row ``no kernels``.
"""

import argparse
import gc
import os
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from gpu_cases import (
    LAYER,
    LORA,
    SAVINGS,
    SHAPES,
    SWITCHED,
    Case,
    Load,
    cases,
    llama,
    objective,
    operations,
)
from torch import nn

from ilu.data.stream import Stream
from ilu.models import lm_head_triton
from ilu.models.lora import ADAPTERS, adapt
from ilu.system.atomic import write_json
from ilu.system.provenance import environment
from ilu.training.fit import Optim, fit
from ilu.types import Example

RESULTS = Path(__file__).parent / "results" / "gpu.json"
BUDGET = 480.0
"""Seconds after which no new row is begun."""


def matmul_peak(device: str, size: int) -> float:
    """Most operations per second of a bfloat16 product that this device was seen to do."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(20):
        began = now(device)
        for _ in range(5):
            torch.matmul(a, b)
        best = min(best, (now(device) - began) / 5)
    return 2.0 * size**3 / best


def now(device: str) -> float:
    """Seconds, once the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(model: nn.Module, case: Case, load: Load, device: str, peak: float) -> dict[str, Any]:
    """Train for a few steps; numbers of the fastest, and of all together for memory."""
    terms = objective(case.method, LAYER[case.size])
    vocabulary = SHAPES[case.size]["vocab_size"]
    row = torch.randint(1, vocabulary, (load.rows, load.tokens), generator=torch.Generator())
    examples = [Example(ids, load.tokens // 4) for ids in row.tolist()]
    streams = {n: Stream(examples, load.rows, 0) for n in ("forget", "retain", "environment")}
    pattern = r"\.[567]\.mlp\.down_proj" if case.method.startswith("rmu") else ""
    if case.size == "toy":
        pattern = ""
    given: dict[str, Any] = {"precision": "bfloat16", **SAVINGS[case.saving]}
    optim = Optim(lr=1e-6, steps=load.steps, parameters=pattern, **given)
    marks = [now(device)]
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    with adapted(model, case, pattern) as (trained, names):
        fit(trained, terms, streams, replace(optim, parameters=names),
            log=lambda row: marks.append(now(device)))  # fmt: skip
    seconds = min(b - a for a, b in pairwise(marks[1:]))
    tokens = load.rows * load.tokens * len({t.on for t in terms.values()})
    rate = operations(model, case, terms, load.rows * load.tokens) / seconds
    memory = torch.cuda.max_memory_allocated() if device.startswith("cuda") else None
    return {"seconds": seconds, "tokens_per_second": tokens / seconds,
            "share_of_peak": rate / peak, "peak_bytes": memory}  # fmt: skip


@contextmanager
def adapted(model: nn.Module, case: Case, pattern: str) -> Generator[tuple[nn.Module, str]]:
    """What a row trains; adapters are gone afterwards and the weights below are as they were."""
    if case.weights != "lora":
        yield model, pattern
        return
    view: Any = adapt(model, LORA, pattern, seed=0)
    try:
        yield view, ADAPTERS
    finally:
        view.unload()
        model.requires_grad_(True)


def tried(model: nn.Module, case: Case, load: Load, device: str, peak: float) -> dict[str, Any]:
    """Numbers of a row, or why there are none."""
    try:
        with patch.dict(os.environ, SWITCHED.get(case.saving, {})):
            return measure(model, case, load, device, peak)
    except torch.OutOfMemoryError:
        return {"skipped": "does not fit: out of memory"}
    except ValueError as error:
        return {"skipped": str(error)}


def rows(sizes: tuple[str, ...], load: Load, device: str, peak: float) -> Iterator[dict[str, Any]]:
    """Every row, until the time is over; a model is made once for its neighbours."""
    began, held, model = time.perf_counter(), None, None
    for case in cases(sizes):
        if time.perf_counter() - began > BUDGET:
            yield {**case._asdict(), "skipped": "no time left"}
            continue
        half = case.weights == "lora" or case.saving == "adamw-bf16"
        wanted = (case.size, torch.bfloat16 if half else torch.float32)
        if wanted != held:
            model = None
            gc.collect()
            if device.startswith("cuda"):
                torch.cuda.empty_cache()
            try:
                held, model = wanted, llama(case.size, device, wanted[1])
            except torch.OutOfMemoryError:
                held = None
        found = {"skipped": "the model does not fit"}
        if model is not None:
            found = tried(model, case, load, device, peak)
        yield {**case._asdict(), **found}


def line(row: Mapping[str, Any]) -> str:
    """A row to read."""
    name = f"{row['size']:4} {row['method']:9} {row['weights']:5} {row['saving']:14}"
    if "skipped" in row:
        return f"{name} skipped: {row['skipped']}"
    memory = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e9:7.1f} GB"
    return f"{name} {row['tokens_per_second']:10.0f} tokens/s {row['share_of_peak']:6.1%}{memory}"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    place = Path(os.environ["OUT"]) / "gpu.json" if "OUT" in os.environ else RESULTS
    parser.add_argument("--out", type=Path, default=place)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--toy", action="store_true", help="a tiny model, to try the script")
    given = parser.parse_args()
    if given.device == "cpu" and not given.toy:
        parser.error("no GPU found; --toy tries the script on a tiny model")
    load = Load(2, 16, steps=3) if given.toy else Load(given.rows, given.tokens)
    peak = matmul_peak(given.device, 256 if given.toy else 8192)
    kernels = lm_head_triton.serves(torch.ones(1, 1, device=given.device, dtype=torch.bfloat16))
    record: dict[str, Any] = {
        "machine": environment(), "matmul_peak": peak, "triton_kernels": kernels,
        "rows_per_stream": load.rows, "tokens_per_row": load.tokens, "rows": [],
    }  # fmt: skip
    print(f"bfloat16 matmul: {peak / 1e12:.1f} TFLOP/s; Triton kernels: {kernels}")
    for row in rows(("toy",) if given.toy else ("1B", "7B"), load, given.device, peak):
        record["rows"].append(row)
        write_json(given.out, record)
        print(line(row), flush=True)


if __name__ == "__main__":
    main()
