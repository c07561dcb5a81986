"""``ilu vectors``: angles, lengths and ranks of task vectors, and what became of hidden states."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ilu.cli.flags import Positional, parse
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
from ilu.models.load import StoredWeights, load_model, model_path
from ilu.models.weight_names import kind_of, module_of
from ilu.recipes.landscape import texts
from ilu.system.atomic import write_json

GROUPS: Mapping[str, Callable[[str], str]] = {"layer": module_of, "module": kind_of}


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """Angles between task vectors of one model: unlearning, and fine-tuning after it.

    Weights are read a few rows at a time, so models of any size fit into memory.

    Example: ilu vectors lab runs/first/model runs/mood/attacks/mood/model --by layer

    Example: ilu vectors lab runs/first/model --cka lab --out runs/first/representations.json

    Args:
        original: folder of the model before unlearning, or lab.
        unlearned: folder of the unlearned model.
        finetuned: folder of the unlearned model after fine-tuning.
        tuned_original: folder of the original after the same fine-tuning, for two more cosines.
        by: norms and cosines by layer, or by kind of module over all layers.
        rank: effective rank of the change of every matrix, exp of the entropy of its normalised
            singular values; minutes for a model of 1B, hours for one of 7B.
        cka: also compare hidden states of original and unlearned model, layer by layer, on the
            texts of this file or hub dataset, or on those of the lab (lab).
        columns: names of columns that differ in these texts, as wanted=present.
        limit: use the first so many texts.
        out: write the numbers to this JSON file; as representations.json in a run directory those
            of --cka are shown by ilu report.
        json: print JSON.
    """

    original: Positional[str]
    unlearned: Positional[str]
    finetuned: Positional[str | None] = None
    tuned_original: str | None = None
    by: Literal["layer", "module"] = "layer"
    rank: bool = False
    cka: str | None = None
    columns: tuple[str, ...] = ()
    limit: int = 200
    out: Path | None = None
    json: bool = False


def vectors(argv: Sequence[str]) -> None:
    """Carry out ``ilu vectors``."""
    wanted: Vectors = parse(Vectors, "ilu vectors", argv)
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
    """Folder of a model."""
    path = Path(model_path(name))
    if not path.is_dir():
        raise ValueError(f"{name!r} is not a model folder")
    return path


def measured(models: Mapping[str, StoredWeights], wanted: Vectors) -> dict[str, Any]:
    """Everything asked for, as it is written and printed."""
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
            for name, source in texts(wanted.cka, wanted.columns).items()
        }
        found["cka"] = {name: layer_cka(before, after, each) for name, each in read.items()}
    return found


def geometry(gram: Gram, taus: Mapping[str, Any]) -> dict[str, Any]:
    """Norms and cosines of a part of the weights."""
    return {"norms": norms(gram, taus), "cosines": cosines(gram, taus)}


def show(found: Mapping[str, Any]) -> None:
    """The whole, then each part, then what else was asked for."""
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
