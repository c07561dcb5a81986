"""Training steps here and as they are usually written, in the same run and on one thread.

    python benchmarks/steps.py --json     # minutes; writes benchmarks/results/steps.json

A random Llama of width 128 reads 8 forget and 8 retain texts of 256 tokens, of which 64 are prompt:
4 layers for losses on predictions, 32 for RMU, at block 7. The usual step (peer.py) makes all
logits, reads a copy of the model at every step, and runs every block. Both begin at the same
weights, and their first losses must agree; then they take turns, and the least processor seconds
count. Ours has read the reference's log-probabilities at its first step, as it has in every epoch
but the first; ``npo_speedup_first_epoch`` is without that. Memory is the largest resident set
beyond that of a process that has imported everything, model and optimiser included.

The last line is one JSON object: a speed-up is the usual time over ours, a ratio of memory ours
over the usual one, ``ilu_over_npo`` our NPO with the penalty over our NPO, where the environment is
the retain batch.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measured import (
    Step,
    alone,
    least_seconds,
    llama,
    our_step,
    peak_mib,
    random_batch,
    trained_only,
)
from peer import peer_step

from ilu.methods.forget.ascent import Ascent
from ilu.methods.forget.npo import NPO
from ilu.methods.forget.rmu import RMU
from ilu.methods.forget.simnpo import SimNPO
from ilu.methods.retain.likelihood import NLL
from ilu.methods.retain.states import States
from ilu.methods.robust.ilu import ScaleGradient, Square
from ilu.system.atomic import write_json
from ilu.system.provenance import environment
from ilu.training.objective import Objective, Term
from ilu.types import Batch

RETAIN = Term(NLL(), on="retain")
OBJECTIVES: dict[str, Objective] = {
    "graddiff": {"forget": Term(Ascent(), on="forget"), "retain": RETAIN},
    "npo": {"forget": Term(NPO(0.1), on="forget"), "retain": RETAIN},
    "simnpo": {"forget": Term(SimNPO(2.5), on="forget"), "retain": RETAIN},
    "rmu": {
        "forget": Term(RMU(layer=7), on="forget"),
        "retain": Term(States(layer=7), on="retain", weight=1200.0),
    },
}
OBJECTIVES["npo-ilu"] = {
    **OBJECTIVES["npo"],
    "invariance": Term(ScaleGradient(), on="retain", weight=0.5, rule=Square()),
}
TRAINED = {"rmu": r"\.[567]\.mlp\.down_proj"}
"""As published; the others train everything."""


@dataclass(frozen=True)
class Size:
    """What is trained on what."""

    vocabulary: int
    layers: int
    width: int = 128
    rows: int = 8
    tokens: int = 256

    def batches(self) -> Mapping[str, Batch]:
        """Forget and retain texts, a quarter of each a prompt."""
        shape = {"rows": self.rows, "tokens": self.tokens, "prompt": self.tokens // 4}
        made = (random_batch(**shape, vocabulary=self.vocabulary, seed=seed) for seed in (1, 2))
        return dict(zip(("forget", "retain"), made, strict=True))


def ours(method: str, size: Size) -> Step:
    """Our step on a new model."""
    model = llama(width=size.width, layers=size.layers, vocabulary=size.vocabulary)
    return our_step(model, OBJECTIVES[method], size.batches(), TRAINED.get(method, ""))


def usual(method: str, size: Size) -> Step:
    """The usual step on the same model."""
    model = llama(width=size.width, layers=size.layers, vocabulary=size.vocabulary)
    trained = trained_only(model, TRAINED.get(method, ""))
    return peer_step(method, model, list(trained.values()), *size.batches().values())


def compare(method: str, size: Size, turns: int) -> dict[str, Any]:
    """Least seconds of both, after a first step whose losses agree."""
    steps = [ours(method, size), usual(method, size)]
    first = [step() for step in steps]
    if abs(first[0] - first[1]) > 1e-5 * max(1.0, abs(first[1])):
        raise RuntimeError(f"{method}: first losses {first} differ")
    mine, theirs = least_seconds(steps, turns)
    print(f"{method:9} {size.vocabulary:6} {mine:7.2f} s {theirs:7.2f} s", flush=True)
    return {"seconds": mine, "usual_seconds": theirs, "first_losses": first}


def unread(size: Size, turns: int) -> float:
    """Least seconds of NPO on texts whose reference was not read before."""
    fresh = [ours("npo", size) for _ in range(turns)]
    ours("graddiff", size)()  # warms up
    return min(least_seconds([step], 1)[0] for step in fresh)


def with_penalty(size: Size, turns: int) -> dict[str, float]:
    """Least seconds of our NPO without and with the penalty."""
    steps = [ours(method, size) for method in ("npo", "npo-ilu")]
    for step in steps:
        step()
    plain, penalised = least_seconds(steps, turns)
    return {"npo_seconds": plain, "npo_ilu_seconds": penalised}


def memory(method: str, size: Size, side: str) -> float:
    """Peak of one side, in MiB."""
    return peak_mib(lambda: (ours if side == "ours" else usual)(method, size))


def measure(sizes: Mapping[str, Size], turns: int) -> dict[str, Any]:
    """Everything, by vocabulary; the large one last."""
    found: dict[str, Any] = {}
    for name in ("small", "large"):
        size, part = sizes[name], dict[str, Any]()
        for method in ("npo", "graddiff", "simnpo"):
            part[method] = alone(compare, method, size, turns)
            sides = {side: alone(memory, method, size, side) for side in ("ours", "usual")}
            part[method] |= {"mib": sides["ours"], "usual_mib": sides["usual"]}
        part["npo"]["seconds_first_epoch"] = alone(unread, size, turns)
        part["npo-ilu"] = alone(with_penalty, size, turns)
        part["npo-ilu"]["mib"] = alone(memory, "npo-ilu", size, "ours")
        found[name] = {"vocabulary": size.vocabulary, **part}
    found["rmu"] = alone(compare, "rmu", sizes["deep"], turns)
    sides = {side: alone(memory, "rmu", sizes["deep"], side) for side in ("ours", "usual")}
    found["rmu"] |= {"mib": sides["ours"], "usual_mib": sides["usual"]}
    return found


def ratios(found: Mapping[str, Any]) -> dict[str, float]:
    """The figures of the large vocabulary, and of the small one under names that say so."""

    def speedup(row: Mapping[str, float], key: str = "seconds") -> float:
        return round(row["usual_seconds"] / row[key], 3)

    made: dict[str, float] = {"rmu_speedup": speedup(found["rmu"])}
    made["rmu_memory_ratio"] = round(found["rmu"]["mib"] / found["rmu"]["usual_mib"], 3)
    for name, ending in (("large", ""), ("small", "_small_vocabulary")):
        rows = found[name]
        for method in ("npo", "graddiff", "simnpo"):
            made[f"{method}_speedup{ending}"] = speedup(rows[method])
            made[f"{method}_memory_ratio{ending}"] = round(
                rows[method]["mib"] / rows[method]["usual_mib"], 3
            )
        made[f"npo_speedup_first_epoch{ending}"] = speedup(rows["npo"], "seconds_first_epoch")
        both = rows["npo-ilu"]
        made[f"ilu_over_npo{ending}"] = round(both["npo_ilu_seconds"] / both["npo_seconds"], 3)
    return made


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="training steps against the usual ones")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="sizes that only try the script")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/steps.json")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    sizes = {"small": Size(4096, 4), "large": Size(32000, 4), "deep": Size(4096, 32)}
    if wanted.tiny:
        sizes = {n: Size(64, 9 if n == "deep" else 1, 16, 2, 16) for n in sizes}
    found = measure(sizes, wanted.turns)
    figures = ratios(found)
    command = " ".join(["python", "benchmarks/steps.py", *sys.argv[1:]])
    record = {"command": command, "environment": environment(), "measured": found}
    write_json(wanted.out, {**record, "ratios": figures})
    for name, value in figures.items():
        print(f"{name:40} {value:8.2f}")
    if wanted.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
