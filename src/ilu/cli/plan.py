"""``ilu plan RECIPE``: how much memory a step will need, and which settings fit a device."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from torch import nn

from ilu.cli.arguments.plan import RESERVE, check
from ilu.cli.flags import flags, without
from ilu.cli.terminal import console, print_json, table
from ilu.cli.unlearn import read
from ilu.models.lora import Lora
from ilu.models.mlp import mlp_outputs_resolved
from ilu.models.stored import skeleton
from ilu.recipes.build import reads_environment
from ilu.recipes.names import parse_name
from ilu.runs.memory.model_shape import Memory, shape_of
from ilu.runs.memory.peak import peak_memory
from ilu.runs.memory.peak_sharded import peak_in_parts
from ilu.runs.prepare import check_ranks
from ilu.runs.recipe import Recipe
from ilu.system.distributed import Ranks
from ilu.training.fit import check_training

GIB = 2**30
DATA = ("--forget", "--retain", "--environment")
UNITS = {"GiB": 2**30, "MiB": 2**20, "GB": 10**9, "MB": 10**6, "G": 2**30, "M": 2**20}
ASSUMED = "80GiB"
"""The memory of a device, where none is given."""
SMALL = "--recompute --micro-batch 1"
SAVINGS: dict[str, dict[str, Any]] = {
    "as given": {},
    "--recompute": {"recompute": True},
    SMALL: {"recompute": True, "micro_batch": 1},
    f"{SMALL} --offload-reference": {
        "recompute": True, "micro_batch": 1, "offload_reference": True,
    },
    f"{SMALL} --optimizer adamw8bit": {
        "recompute": True, "micro_batch": 1, "optimizer": "adamw8bit",
    },
    f"{SMALL} --optimizer adamw-bf16": {
        "recompute": True, "micro_batch": 1, "optimizer": "adamw-bf16",
    },
    f"{SMALL} --lora-rank 16": {"recompute": True, "micro_batch": 1},
    f"{SMALL} --lora-rank 16 --quantise-base 4": {"recompute": True, "micro_batch": 1},
}  # fmt: skip
"""Flags in the order in which they should be tried, and what they set."""
ADAPTERS = {
    "--lora-rank 16": Lora(16, 16.0),
    "--lora-rank 16 --quantise-base 4": Lora(16, 16.0, base_bits=4),
}
"""What these flags make."""
SHORT = {"weights": "weights", "gradients": "grads", "optimizer": "optim", "reference": "ref",
         "rules": "rules", "activations": "acts", "head": "head",
         "gathered": "gathered"}  # fmt: skip


class Row(NamedTuple):
    """One choice of settings and what it needs."""

    settings: str
    memory: Memory
    fits: bool


def main(argv: Sequence[str]) -> None:
    """Carry out the command."""
    check(argv)
    room = bytes_of(taken(argv, "--device-memory", ASSUMED))
    length = tokens_of(taken(argv, "--length", "512"))
    ranks = shared_by(taken(argv, "--shard", "1"))
    own = ("--device-memory", "--length", "--shard", "--out", *DATA)
    rest = [*without(argv[1:], own), "--out", "unused"]
    for data in DATA if reads_environment(parse_name(argv[0])) else DATA[:2]:
        rest += [data, (flags(argv, data) or ["unused.jsonl"])[0]]
    recipe, _ = read(argv[0], [a for a in rest if a != "--json"])
    rows = list(choices(recipe, length, room, ranks))
    if "--json" in argv:
        print_json([{"settings": r.settings, "fits": r.fits, **r.memory._asdict()} for r in rows])
        return
    show(rows, recipe, length, room, ranks)
    if not flags(argv, "--device-memory"):
        console.print(f"assumed: a device of {ASSUMED}; give yours with --device-memory 24GiB")


def taken(argv: Sequence[str], name: str, default: str) -> str:
    """The value of a flag of this command."""
    return (flags(argv, name) or [default])[-1]


def tokens_of(text: str) -> int:
    """Read the length of an example."""
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"--length {text}: say how many tokens an example has, at least 1")
    return int(text)


def bytes_of(text: str) -> float:
    """Read 24GiB, 80GB or 512MiB."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]+)", text)
    if found is None or found[2] not in UNITS:
        raise ValueError(f"--device-memory {text!r}: write it like 24GiB or 80GB")
    return float(found[1]) * UNITS[found[2]]


def shared_by(text: str) -> Ranks:
    """The processes that share the weights."""
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"--shard {text}: in ilu plan, say by how many processes: --shard 4")
    return Ranks(0, int(text), sharded=int(text) > 1)


def choices(recipe: Recipe, length: int, room: float, ranks: Ranks) -> Iterator[Row]:
    """What the settings as given need, and what each saving does to it."""
    model = skeleton(recipe.model, recipe.revision)
    pattern = mlp_outputs_resolved(model, recipe.optim.parameters)
    recipe = replace(recipe, optim=replace(recipe.optim, parameters=pattern))
    for name, changes in SAVINGS.items():
        lora = ADAPTERS.get(name.removeprefix(SMALL).strip(), recipe.lora)
        try:
            changed = replace(recipe, optim=replace(recipe.optim, **changes), lora=lora)
            check_ranks(changed, ranks)
            memories = []
            for stage in stages_of(changed):
                check_training(model, stage.objective, stage.optim, None, ranks)
                memories.append(needed(model, stage, length, ranks))
        except ValueError:
            if not changes:
                raise
            continue  # this recipe or this model cannot have this saving
        memory = max(memories, key=lambda found: found.total)
        most = max(memory.total, 0.0 if ranks.sharded else float32_bytes(model))
        yield Row(name, memory, most <= room - RESERVE * GIB)


def stages_of(recipe: Recipe) -> list[Recipe]:
    """The unlearning, and the distillation after it."""
    after = recipe.distillation()
    return [recipe, after] if after else [recipe]


def needed(model: nn.Module, recipe: Recipe, length: int, ranks: Ranks) -> Memory:
    """The memory of one training, on one device or on each of several."""
    shape = shape_of(model, recipe)
    if ranks.sharded:
        return peak_in_parts(recipe, shape, length, ranks.size)
    return peak_memory(recipe, shape, length)


def float32_bytes(model: nn.Module) -> float:
    """Bytes of the model in float32, the precision in which it is loaded and measured."""
    return 4.0 * sum(p.numel() for p in model.parameters())


def show(rows: Sequence[Row], recipe: Recipe, length: int, room: float, ranks: Ranks) -> None:
    """The table, and the first choice that fits."""
    used = [i for i in range(len(SHORT)) if any(row.memory[i] for row in rows)]
    unit = "GiB" if max(row.memory.total for row in rows) >= GIB else "MiB"
    scale = UNITS[unit]
    cells: list[tuple[str, ...]] = []
    for number, row in enumerate(rows, start=1):
        sizes = (f"{x / scale:.1f}" for x in (*(row.memory[i] for i in used), row.memory.total))
        cells.append((str(number), *sizes, "yes" if row.fits else "no"))
    where = f" in each of {ranks.size} processes" if ranks.sharded else ""
    table(
        f"{recipe.name}, examples of {length} tokens: {unit} at the worst moment of a step{where}",
        ("", *(list(SHORT.values())[i] for i in used), "total", "fits"),
        cells,
    )
    for number, row in enumerate(rows, start=1):
        console.print(f"{number:>3}  {row.settings}", markup=False, soft_wrap=True)
    fitting = next((r for r in rows if r.fits), None)
    if fitting is None:
        verdict = (
            f"nothing fits {room / scale:.1f} {unit}: shorter rows, or more devices and --shard"
        )
    elif fitting.settings == "as given":
        verdict = f"fits {room / scale:.1f} {unit} as it is"
    else:
        verdict = f"to fit {room / scale:.1f} {unit} add: {fitting.settings}"
    console.print(verdict, markup=False, soft_wrap=True)
