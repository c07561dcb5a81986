"""``ilu evaluate``: what models know, in one table."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ilu.cli.arguments.evaluate import Evaluate, read
from ilu.cli.terminal import error, number, progress, table
from ilu.data.inputs import check_files
from ilu.evals.cached_suite import Evaluation, evaluate, harness_results, with_order, with_reference
from ilu.evals.score import written
from ilu.evals.suite import Suite
from ilu.models.load import load_model
from ilu.recipes.suite import suite_of
from ilu.runs.results.display import displayed
from ilu.runs.run_dir import without_items
from ilu.system.atomic import write_json
from ilu.system.locks import alone
from ilu.system.provenance import environment


def main(argv: Sequence[str]) -> None:
    """Carry out the command."""
    wanted = read(argv)
    if not wanted.model:
        raise ValueError(
            "ilu evaluate needs at least one model: a folder, a hub id, a GGUF file, smollm2 or lab"
        )
    if wanted.out and wanted.out.suffix != ".json":
        raise ValueError(f"--out {wanted.out}: give a file that ends in .json")
    request = wanted.request
    suite = suite_of(wanted.suite, request)
    if suite.followed and len(dict.fromkeys(wanted.model)) < 2:
        raise ValueError(f"--split {request.split} needs the original and models that follow it")
    if suite.followed and wanted.reference:
        raise ValueError(f"--split {request.split} compares with the first model: no --reference")
    check_files(suite)
    with alone(wanted.out) if wanted.out else nullcontext():
        found = evaluated(suite, wanted)
        show(wanted.suite, found)
        if wanted.out:
            write(wanted, found, wanted.out)


def evaluated(suite: Suite, wanted: Evaluate) -> dict[str, Evaluation]:
    """Every model's scores; one model is in memory at a time."""
    folder = wanted.out.with_suffix("") / "parts" if wanted.out else None
    reference = (wanted.reference,) if wanted.reference else ()
    names = list(dict.fromkeys((*reference, *wanted.model)))
    found: dict[str, Evaluation] = {}
    with progress() as shown:
        for name in names:
            lm = load_model(name, device=wanted.device)
            found[name] = evaluate(
                suite, lm, folder, progress=lambda d, t, n=name: shown(f"evaluate {n}", d, t)
            )
    if wanted.reference is None:
        return dict(zip(found, with_order(suite, list(found.values())), strict=True))
    oracle = found[wanted.reference]
    return {name: compared(suite, name, found[name], oracle) for name in wanted.model}


def compared(suite: Suite, name: str, own: Evaluation, reference: Evaluation) -> Evaluation:
    """The scores with those that need the reference; the reference itself has none of them."""
    if own.weights == reference.weights:
        warnings.warn(f"{name} is the reference: it is not compared with itself", stacklevel=2)
        return own
    return with_reference(suite, own, reference)


def show(suite: str, found: Mapping[str, Evaluation]) -> None:
    """One model with errors and numbers of items, several models as columns."""
    if len(found) == 1:
        ((name, one),) = found.items()
        rows = [
            (k, number(s.value), error(s), str(s.n), str(s.unscored))
            for k, s in displayed(one.scores).items()
        ]
        table(name, ("metric", "value", "± s.e.", "n", "unscored"), rows)
        return
    every = [displayed(each.scores) for each in found.values()]
    metrics = dict.fromkeys(m for scores in every for m in scores)
    rows = [
        (m, *(written(s.value, s.stderr, s.n) if (s := e.get(m)) else "-" for e in every))
        for m in metrics
    ]
    table(suite, ("metric", *labels(list(found))), rows)


def labels(names: Sequence[str]) -> list[str]:
    """Short names of models: that of a run for RUN/model, the last word of a hub id."""
    paths = [Path(n).parent if Path(n).name == "model" else Path(n) for n in names]
    short = [path.name for path in paths]
    return short if len(set(short)) == len(short) else list(names)


def write(wanted: Evaluate, found: Mapping[str, Evaluation], out: Path) -> None:
    """The scores, where each item's value lies, and lm-evaluation-harness's shape of them."""
    for name, each in found.items():
        results = harness_results(wanted.suite, name, each.scores)
        write_json(out.with_suffix("") / results["model_name_sanitized"] / "results.json", results)
    models = {name: record(each) for name, each in found.items()}
    settings = {"suite": wanted.suite, **asdict(wanted.request), "reference": wanted.reference}
    write_json(out, {**settings, "environment": environment(), "models": models})


def record(each: Evaluation) -> dict[str, Any]:
    """One model's entry: scores under their names as before, then what they were computed from."""
    scores = {name: without_items(score) for name, score in each.scores.items()}
    return {**scores, "weights": each.weights, "parts": dict(each.parts)}
