"""What original weights in host memory cost and save.

    OMP_NUM_THREADS=1 python benchmarks/lean.py     # minutes; writes benchmarks/results/lean.json

``ilu.training.fit.fit`` with AdamW and no clipping, on a random Llama whose weights are most of the
memory. Seconds are processor seconds of a step, the least of some; memory is what tensors take at
the worst moment of two steps, by torch's profiler. Each number is of a process forked for it.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
from measured import alone, llama
from torch.profiler import ProfilerActivity, profile

from ilu.data.stream import Stream
from ilu.methods.forget.npo import NPO
from ilu.methods.retain.likelihood import KL, NLL
from ilu.system.atomic import write_json
from ilu.system.provenance import environment
from ilu.training.fit import Optim, fit
from ilu.training.objective import Objective, Term
from ilu.types import Example

RETAIN = Term(NLL(), on="retain")
OBJECTIVES: dict[str, Objective] = {
    "one data set": {"retain": RETAIN},
    "NPO": {"forget": Term(NPO(0.1), on="forget"), "retain": RETAIN},
    "KL": {"retain": Term(KL(), on="retain")},
}
OPTIM = Optim(lr=1e-5, steps=2, clip=None, recompute=True)
ROWS = {
    ("one data set", "as it is"): OPTIM,
    ("NPO", "as it is"): OPTIM,
    ("KL", "as it is"): OPTIM,
    ("KL", "--offload-reference"): replace(OPTIM, offload_reference=True),
}


@dataclass(frozen=True)
class Size:
    """Of the model and of each batch."""

    width: int = 256
    layers: int = 6
    vocabulary: int = 2048
    rows: int = 2
    tokens: int = 64


def train(objective: Objective, optim: Optim, size: Size) -> list[dict[str, float]]:
    """Rows of the log, with processor seconds."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, size.vocabulary, (4 * size.rows, size.tokens), generator=draw).tolist()
    examples = [Example(i, 0) for i in ids]
    streams = {name: Stream(examples, size.rows, 0) for name in ("forget", "retain")}
    model = llama(width=size.width, layers=size.layers, vocabulary=size.vocabulary)
    rows: list[dict[str, float]] = []
    fit(model, objective, streams, optim,
        log=lambda row: rows.append({**row, "seconds": time.process_time()}))  # fmt: skip
    return rows


def seconds(objective: Objective, optim: Optim, size: Size, turns: int) -> tuple[float, float]:
    """Least processor seconds of a step after the first, and the last gradient norm."""
    rows = train(objective, replace(optim, steps=turns + 1), size)
    took = [b["seconds"] - a["seconds"] for a, b in pairwise(rows)]
    return round(min(took), 3), rows[-1]["grad_norm"]


def allocated(objective: Objective, optim: Optim, size: Size) -> float:
    """MiB of tensors at the worst moment of two steps, the model's weights among them."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        train(objective, optim, size)
    found: Any = seen.profiler
    events = [e for e in found.kineto_results.events() if e.name() == "[memory]"]
    sizes = (e.nbytes() for e in sorted(events, key=lambda e: e.start_ns()))
    return round(max(accumulate(sizes)) / 2**20, 1)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="cost of what saves memory of weights")
    parser.add_argument("--turns", type=int, default=3, help="steps of which the fastest counts")
    parser.add_argument("--tiny", action="store_true", help="a size that only tries the script")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/lean.json")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    size = Size(32, 2, 64, 1, 8) if wanted.tiny else Size()
    model = llama(width=size.width, layers=size.layers, vocabulary=size.vocabulary)
    weights = round(sum(p.nbytes for p in model.parameters()) / 2**20, 1)
    del model
    found = []
    for (objective, settings), optim in ROWS.items():
        given = OBJECTIVES[objective], optim, size
        took, norm = alone(seconds, *given, wanted.turns)
        mib = alone(allocated, *given)
        found.append({"objective": objective, "settings": settings, "mib": mib,
                      "seconds": took, "last_grad_norm": norm})  # fmt: skip
        print(f"{objective:>14} {settings:>20} {mib:8.1f} MiB {took:8.3f} s", flush=True)
    print(f"weights: {weights} MiB")
    command = " ".join(["python", "benchmarks/lean.py", *sys.argv[1:]])
    record = {"command": command, "environment": environment(), "size": asdict(size)}
    write_json(wanted.out, {**record, "weights_mib": weights, "rows": found})
    print(json.dumps({f"{row['objective']}, {row['settings']}": row["mib"] for row in found}))


if __name__ == "__main__":
    main()
