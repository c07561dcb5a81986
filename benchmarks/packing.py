"""What a step costs where no padding is read, by how much the texts of a batch differ in length.

    OMP_NUM_THREADS=1 python benchmarks/packing.py         # minutes; writes results/packing.json

A step of NPO with its loss on a retain batch, on random Llamas, with ``--pack`` and without, on the
same texts: processor seconds, the least of some in turns, and how much the resident set grew. Where
``ILU_HUB`` has them, also how much of a batch of TOFU or GSM8K is padding, by the lab's tokenizer.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from measured import Step, alone, least_seconds, llama, our_step, peak_mib, random_batch

from ilu.data.hub import MIRROR
from ilu.methods.forget.npo import NPO
from ilu.methods.retain.likelihood import NLL
from ilu.models.load import load_model
from ilu.models.packing import attending_to_each_text
from ilu.recipes.user_data import dataset
from ilu.system.atomic import write_json
from ilu.system.provenance import environment
from ilu.training.objective import Objective, Term
from ilu.types import IGNORE, Batch

OBJECTIVE: Objective = {
    "forget": Term(NPO(0.1), on="forget"),
    "retain": Term(NLL(), on="retain"),
}
ROWS, LONGEST, VOCABULARY = 8, 256, 4096
SHORTEST = (256, 128, 16)
"""Lengths are drawn evenly from here to the longest, and one text has that."""
WIDTHS = (128, 512)
DATA = ("tofu:forget10", "tofu:retain90", "openai/gsm8k:main:train")


def uneven(shortest: int, longest: int, seed: int) -> Batch:
    """A batch of texts of different lengths."""
    batch = random_batch(rows=ROWS, tokens=longest, prompt=0, vocabulary=VOCABULARY, seed=seed)
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(shortest, longest + 1, (ROWS, 1), generator=draw)
    lengths[0] = longest
    beyond = torch.arange(longest) >= lengths
    return replace(
        batch,
        attention_mask=batch.attention_mask.masked_fill(beyond, 0),
        labels=batch.labels.masked_fill(beyond, IGNORE),
    )


def step(width: int, batches: Mapping[str, Batch], stack: ExitStack, *, packed: bool) -> Step:
    """A step on a model of its own."""
    model = llama(width=width, layers=4, vocabulary=VOCABULARY)
    stack.enter_context(attending_to_each_text(model, packed))
    return our_step(model, OBJECTIVE, batches, packed=packed)


def compared(width: int, batches: Mapping[str, Batch], turns: int) -> tuple[list[float], ...]:
    """First losses and least seconds, padded and packed."""
    with ExitStack() as stack:
        steps = [step(width, batches, stack, packed=packed) for packed in (False, True)]
        first = [one() for one in steps]
        return first, least_seconds(steps, turns)


def grown(width: int, batches: Mapping[str, Batch], packed: bool) -> float:
    """MiB of model, optimiser and two steps."""
    with ExitStack() as stack:
        return peak_mib(lambda: step(width, batches, stack, packed=packed))


def measured(width: int, shortest: int, longest: int, turns: int) -> dict[str, Any]:
    """One row of the table."""
    batches = {
        name: uneven(shortest, longest, seed) for seed, name in enumerate(("forget", "retain"))
    }
    read = sum(int(b.attention_mask.sum()) for b in batches.values())
    losses, seconds = alone(compared, width, batches, turns)
    mib = [alone(grown, width, batches, packed) for packed in (False, True)]
    return {
        "width": width,
        "padding": round(1 - read / sum(b.attention_mask.numel() for b in batches.values()), 3),
        "first_losses": losses,
        "seconds": [round(s, 3) for s in seconds],
        "speedup": round(seconds[0] / seconds[1], 2),
        "mib": mib,
    }


def shares() -> dict[str, dict[int, float]]:
    """Share of padding in 300 random batches of each size, by data set."""
    tokenizer, found = load_model("lab").tokenizer, dict[str, dict[int, float]]()
    for name in DATA if os.environ.get(MIRROR) else ():
        lengths = torch.tensor([len(e.ids) for e in dataset(name, (), None)(tokenizer)])
        draw = torch.Generator().manual_seed(0)
        found[name] = {}
        for size in (8, 32):
            drawn = lengths[torch.randint(len(lengths), (300, size), generator=draw)]
            width = drawn.max(1).values.sum() * size
            found[name][size] = round(1 - (drawn.sum() / width).item(), 3)
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="a size that only tries the script")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/packing.json")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    widths, longest = ((16,), 16) if wanted.tiny else (WIDTHS, LONGEST)
    rows: list[dict[str, Any]] = []
    for width in widths:
        for shortest in SHORTEST:
            rows.append(measured(width, shortest * longest // LONGEST, longest, wanted.turns))
            print(rows[-1], flush=True)
    command = " ".join(["python", "benchmarks/packing.py", *sys.argv[1:]])
    record = {"command": command, "environment": environment(), "padding": shares()}
    write_json(wanted.out, {**record, "rows": rows})
    print(json.dumps({f"{r['width']}, {r['padding']}": r["speedup"] for r in rows}))


if __name__ == "__main__":
    main()
