"""Cost of one step against size: tokens, rows, layers and vocabulary, each doubled four times.

    python benchmarks/size.py     # minutes; writes benchmarks/results/size.json
    python benchmarks/size.py --only vocabulary --out benchmarks/results/size_vocabulary.json

NPO with the invariance penalty on the retain batch, in the steady state, a random Llama of width
128 on one thread. Seconds are the least processor seconds of several steps; memory is the largest
resident set beyond that of a process that has imported everything, with and without the weights,
their gradients and AdamW's moments (4 bytes for each weight, and of a trained one 12 more, and 4
for NPO's reference). The vocabulary also with nothing trained but the blocks, so that nothing but
the weights has to grow with it.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from measured import Step, alone, least_seconds, llama, our_step, peak_mib, trained_only
from steps import OBJECTIVES, Size

from ilu.system.atomic import write_json
from ilu.system.provenance import environment

METHOD = "npo-ilu"
START = Size(vocabulary=4096, layers=2, rows=4, tokens=128)
DOUBLED = {"tokens": "", "rows": "", "layers": "", "vocabulary": "", "vocabulary, blocks": "layers"}
"""What is doubled, after a comma what alone is trained, and the names of these weights."""


def seconds(size: Size, pattern: str, turns: int) -> float:
    """Least seconds of a step after the first."""
    step = made(size, pattern)
    step()
    return least_seconds([step], turns)[0]


def memory(size: Size, pattern: str) -> float:
    """Peak in MiB."""
    return peak_mib(lambda: made(size, pattern))


def made(size: Size, pattern: str) -> Step:
    """A step that trains the weights whose name matches."""
    model = llama(width=size.width, layers=size.layers, vocabulary=size.vocabulary)
    return our_step(model, OBJECTIVES[METHOD], size.batches(), pattern)


def held_mib(size: Size, pattern: str) -> float:
    """What the weights and all that is as large as they take."""
    model = llama(width=size.width, layers=size.layers, vocabulary=size.vocabulary)
    trained = sum(p.numel() for p in trained_only(model, pattern).values())
    return (sum(p.numel() for p in model.parameters()) * 4 + trained * 16) / 2**20


def point(size: Size, pattern: str, turns: int) -> dict[str, float]:
    """Seconds and memory at one size."""
    peak = alone(memory, size, pattern)
    return {
        "tokens_per_step": 2 * size.rows * size.tokens,
        "seconds": alone(seconds, size, pattern, turns),
        "mib": peak,
        "mib_beyond_weights": round(peak - held_mib(size, pattern), 1),
    }


def series(start: Size, name: str, doublings: int, turns: int) -> list[dict[str, float]]:
    """One row for each value of a dimension."""
    dimension = name.partition(",")[0]
    sizes = [getattr(start, dimension) * 2**k for k in range(doublings + 1)]
    return [
        {dimension: v} | point(replace(start, **{dimension: v}), DOUBLED[name], turns)
        for v in sizes
    ]


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
    only = sorted({name.partition(",")[0] for name in DOUBLED})
    parser.add_argument("--only", choices=only, help="one dimension")
    parser.add_argument("--tiny", action="store_true", help="sizes that only try the script")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/size.json")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    start, doublings = (Size(32, 1, 16, 1, 8), 1) if wanted.tiny else (START, 4)
    names = [n for n in DOUBLED if wanted.only in (None, n.partition(",")[0])]
    rows = {name: series(start, name, doublings, wanted.turns) for name in names}
    for name, each in rows.items():
        for row in each:
            size = f"{name:>18} {row[name.partition(',')[0]]:>6}"
            print(f"{size} {row['seconds']:8.3f} s {row['mib']:8.1f} MiB "
                  f"{row['mib_beyond_weights']:8.1f} MiB beyond weights")  # fmt: skip
    command = " ".join(["python", "benchmarks/size.py", *sys.argv[1:]])
    record = {"command": command, "environment": environment(), "rows": rows}
    write_json(wanted.out, {**record, "growth": growth(rows)})
    print(json.dumps(growth(rows)))


if __name__ == "__main__":
    main()
