"""Score files of ``ilu evaluate --out``: a table of models on one suite."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ilu.runs.results.display import displayed
from ilu.system.scores import Score


class Evaluated(NamedTuple):
    """A table with a row per metric and a column per model; None where a model lacks a metric."""

    title: str
    models: Sequence[str]
    metrics: Mapping[str, Sequence[Score | None]]


def read_evaluation(path: Path) -> Evaluated:
    """Read a score file; ValueError if it is not one."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        models = {
            str(name): displayed(scores_of(entry)) for name, entry in record["models"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a score file ({type(error).__name__}: {error}): give a JSON file that "
            "ilu evaluate has written"
        ) from None
    names = dict.fromkeys(metric for found in models.values() for metric in found)
    table = {name: [found.get(name) for found in models.values()] for name in names}
    return Evaluated(f"{record.get('suite', path.stem)} ({path.name})", list(models), table)


def scores_of(entry: Mapping[str, Any]) -> dict[str, Score]:
    """The scores of a model; the other entries are hashes of the model and the data."""
    scores = {k: v for k, v in entry.items() if isinstance(v, Mapping) and "value" in v}
    return {
        str(k): Score(finite(v["value"]), finite(v["stderr"]), int(v["n"]))
        for k, v in scores.items()
    }


def finite(x: Any) -> float:
    """A finite number: JSON of Python may hold NaN and infinities."""
    if not math.isfinite(number := float(x)):
        raise ValueError(f"{x} is not a finite number")
    return number
