"""``ilu vectors``: norms, angles and ranks of task vectors, and CKA of hidden states."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ilu.cli.arguments.vectors import Vectors, read
from ilu.cli.terminal import number, print_json, table
from ilu.evals.geometry.cka import layer_cka
from ilu.evals.geometry.task_vectors import (
    Gram,
    cosines,
    effective_ranks,
    grams,
    grouped,
    known,
    norms,
)
from ilu.models.load import load_model
from ilu.models.named import model_path
from ilu.models.stored import StoredWeights
from ilu.models.weight_names import kind_of, module_of
from ilu.recipes.landscape import texts
from ilu.system.atomic import write_json

GROUPS: Mapping[str, Callable[[str], str]] = {"layer": module_of, "module": kind_of}


def vectors(argv: Sequence[str]) -> None:
    """Carry out ``ilu vectors``."""
    wanted = read(argv)
    named = {
        "original": wanted.original,
        "unlearned": wanted.unlearned,
        "finetuned": wanted.finetuned,
        "tuned_original": wanted.tuned_original,
    }
    models = {k: StoredWeights(folder(v)) for k, v in named.items() if v is not None}
    found = measured(models, wanted)
    if wanted.out:
        write_json(wanted.out, found)
    if wanted.json:
        print_json(found)
    else:
        show(found)


def folder(name: str) -> Path:
    """The folder of a model; ValueError if it does not exist."""
    path = Path(model_path(name))
    if not path.is_dir():
        raise ValueError(
            f"{name!r} is not a model folder: give a folder of weights, a GGUF file, lab or smollm2"
        )
    return path


def measured(models: Mapping[str, StoredWeights], wanted: Vectors) -> dict[str, Any]:
    """All requested numbers, as they are written and printed."""
    products, taus, key = grams(models), known(models), GROUPS[wanted.by]
    total = grouped(products, lambda name: "")[""]
    found: dict[str, Any] = {
        "schema": 1,
        "norms": norms(total, taus),
        "cosines": cosines(total, taus),
        f"by_{wanted.by}": {k: geometry(g, taus) for k, g in grouped(products, key).items()},
    }
    if wanted.rank:
        found["effective_ranks"] = effective_ranks(models)
    if wanted.cka:
        before, after = (load_model(n) for n in (wanted.original, wanted.unlearned))
        read = {
            name: source(before.tokenizer)[: wanted.limit]
            for name, source in texts(wanted.cka, wanted.cka_columns).items()
        }
        found["cka"] = {name: layer_cka(before, after, each) for name, each in read.items()}
    return found


def geometry(gram: Gram, taus: Mapping[str, Any]) -> dict[str, Any]:
    """Norms and cosines of one group of weights."""
    return {"norms": norms(gram, taus), "cosines": cosines(gram, taus)}


def show(found: Mapping[str, Any]) -> None:
    """Print totals, then each group, then ranks and CKA if they were requested."""
    rows = [
        (f"{kind[:-1]} {k}", number(v))
        for kind in ("norms", "cosines")
        for k, v in found[kind].items()
    ]
    table("task vectors", ("", "value"), rows)
    by = "by_layer" if "by_layer" in found else "by_module"
    columns = [*(f"|{k}|" for k in found["norms"]), *(f"cos {k}" for k in found["cosines"])]
    rows = [
        (part, *map(number, [*each["norms"].values(), *each["cosines"].values()]))
        for part, each in found[by].items()
    ]
    table(by.replace("_", " "), (by.removeprefix("by_"), *columns), rows)
    if ranks := found.get("effective_ranks"):
        rows = [(name, *map(number, each.values())) for name, each in ranks.items()]
        table("effective rank", ("matrix", *found["norms"]), rows)
    for name, each in found.get("cka", {}).items():
        rows = [(str(i), number(v)) for i, v in enumerate(each["layers"])]
        table(f"CKA on {name}, {each['tokens']} tokens", ("layer", "CKA"), rows)
