"""Cost of one step against size: tokens, rows, layers and vocabulary, each doubled four times.

    python benchmarks/size.py     # minutes; writes benchmarks/results/size.json

NPO with the invariance penalty on the retain batch, in the steady state, a random Llama of width
128 on one thread. Seconds are the least processor seconds of several steps; memory is the largest
resident set beyond that of a process that has imported everything, with and without the weights,
their gradients and AdamW's moments (16 bytes for each weight, and 4 for NPO's reference).
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from measured import alone, least_seconds, llama, peak_mib
from steps import Size, ours

from ilu.environment import environment
from ilu.files import write_json

METHOD = "npo-ilu"
START = Size(vocabulary=4096, layers=2, rows=4, tokens=128)
DOUBLED = ("tokens", "rows", "layers", "vocabulary")


def seconds(size: Size, turns: int) -> float:
    """Least seconds of a step after the first."""
    step = ours(METHOD, size)
    step()
    return least_seconds([step], turns)[0]


def memory(size: Size) -> float:
    """Peak in MiB."""
    return peak_mib(lambda: ours(METHOD, size))


def held_mib(size: Size) -> float:
    """What the weights and all that is as large as they take."""
    model = llama(width=size.width, layers=size.layers, vocabulary=size.vocabulary)
    return sum(p.numel() for p in model.parameters()) * 20 / 2**20


def point(size: Size, turns: int) -> dict[str, float]:
    """Seconds and memory at one size."""
    peak = alone(memory, size)
    return {
        "tokens_per_step": 2 * size.rows * size.tokens,
        "seconds": alone(seconds, size, turns),
        "mib": peak,
        "mib_beyond_weights": round(peak - held_mib(size), 1),
    }


def series(start: Size, dimension: str, doublings: int, turns: int) -> list[dict[str, float]]:
    """One row for each value of a dimension."""
    values = [getattr(start, dimension) * 2**k for k in range(doublings + 1)]
    return [{dimension: v} | point(replace(start, **{dimension: v}), turns) for v in values]


def growth(rows: Mapping[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """By how much the last doubling and all of them multiply the cost."""
    return {
        name: {
            f"{key}_{span}": round(row[-1][key] / row[start][key], 3)
            for key in ("seconds", "mib")
            for span, start in (("last_doubling", -2), ("in_all", 0))
        }
        for name, row in rows.items()
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="cost of a step against size")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="sizes that only try the script")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/size.json")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    start, doublings = (Size(32, 1, 16, 1, 8), 1) if wanted.tiny else (START, 4)
    rows = {name: series(start, name, doublings, wanted.turns) for name in DOUBLED}
    for name, each in rows.items():
        for row in each:
            size = f"{name:>10} {row[name]:>6}"
            print(f"{size} {row['seconds']:8.3f} s {row['mib']:8.1f} MiB "
                  f"{row['mib_beyond_weights']:8.1f} MiB beyond weights")  # fmt: skip
    command = " ".join(["python", "benchmarks/size.py", *sys.argv[1:]])
    record = {"command": command, "environment": environment(), "rows": rows}
    write_json(wanted.out, {**record, "growth": growth(rows)})
    print(json.dumps(growth(rows)))


if __name__ == "__main__":
    main()
