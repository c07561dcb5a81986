"""``ilu landscape``: scores on a line or plane through models, or in random directions."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ilu.cli.arguments.landscape import Kind, Landscape, read
from ilu.cli.terminal import number, progress, table
from ilu.evals.geometry.landscape import (
    Axis,
    filter_normalised,
    orthogonal_towards,
    position,
    shapes_of,
    surface,
    towards,
    weights_of,
)
from ilu.evals.geometry.task_vectors import same_shapes
from ilu.models.load import load_model
from ilu.recipes.landscape import measured
from ilu.recipes.suite import suite_kind
from ilu.recipes.suite_request import SuiteRequest
from ilu.runs.report.svg import landscape_svg
from ilu.system.atomic import write_json, write_text
from ilu.system.provenance import environment
from ilu.types import Weights

SPANS: Mapping[Kind, tuple[float, float]] = {
    "line": (-0.25, 1.25), "plane": (-0.5, 1.5), "random": (-0.5, 0.5),
}  # fmt: skip
POINTS: Mapping[Kind, int] = {"line": 13, "plane": 9, "random": 9}


def main(argv: Sequence[str]) -> None:
    """Carry out the command."""
    wanted, request = read(argv)
    kind = wanted.kind or ("plane" if wanted.finetuned else "line")
    if (kind == "plane") != (wanted.finetuned is not None):
        raise ValueError(
            f"--kind {kind}: a plane needs a third model (finetuned), the other kinds allow none"
        )
    if wanted.points is not None and wanted.points < 2:
        raise ValueError(f"--points {wanted.points}: it must be at least 2")
    if wanted.out.suffix != ".json":
        raise ValueError(f"--out {wanted.out}: give a file that ends in .json")
    found = explored(kind, wanted, request)
    write_json(wanted.out, found)
    for metric in found["points"][0]["scores"]:
        write_text(
            wanted.out.with_name(f"{wanted.out.stem}-{metric}.svg"), landscape_svg(found, metric)
        )
    show(found)


def explored(kind: Kind, wanted: Landscape, request: SuiteRequest) -> dict[str, Any]:
    """The record of a landscape."""
    if suite_kind(wanted.suite).original:
        request = replace(request, original=wanted.original)
    suite = measured(wanted.suite, request)
    lm = load_model(wanted.unlearned, device=wanted.device)
    origin = weights_of(lm.model)
    others = {"original": wanted.original, "finetuned": wanted.finetuned}
    ends = {
        name: weights_of(load_model(model, device=wanted.device).model)
        for name, model in others.items()
        if model is not None
    }
    same_shapes({n: shapes_of(w) for n, w in {"unlearned": origin, **ends}.items()})
    axes = axes_of(kind, origin, ends, wanted.seed)
    places = {} if kind == "random" else {n: position(origin, w, axes) for n, w in ends.items()}
    span = np.linspace(*SPANS[kind], wanted.points or POINTS[kind]).tolist()
    with progress() as shown:
        points = surface(lm, axes, [span] * len(axes), suite, lambda d, t: shown("landscape", d, t))
    return {
        "schema": 1,
        "kind": kind,
        "suite": wanted.suite,
        "seed": wanted.seed,
        "axes": [{"towards": a.name, "length": a.length, "steps": span} for a in axes],
        "models": {"unlearned": [0.0] * len(axes), **places},
        "points": points,
        "environment": environment(),
    }


def axes_of(kind: Kind, origin: Weights, ends: Mapping[str, Weights], seed: int) -> list[Axis]:
    """The directions of a landscape."""
    if kind == "random":
        return [filter_normalised(origin, 2 * seed + i, f"random {i + 1}") for i in (0, 1)]
    first = towards("original", origin, ends["original"])
    return [
        first,
        *(orthogonal_towards(n, origin, w, first) for n, w in ends.items() if n != "original"),
    ]


def show(found: Mapping[str, Any]) -> None:
    """Print the scores of a line, or the range of each score on a plane."""
    points = found["points"]
    metrics = list(points[0]["scores"])
    values = {m: [p["scores"][m]["value"] for p in points] for m in metrics}
    if found["kind"] == "line":
        rows = [
            (number(p["at"][0]), *(number(values[m][i]) for m in metrics))
            for i, p in enumerate(points)
        ]
        table("from the unlearned model (0) to the original (1)", ("at", *metrics), rows)
        return
    rows = [(m, number(min(v)), number(max(v))) for m, v in values.items()]
    table(f"{len(points)} points", ("metric", "minimum", "maximum"), rows)
