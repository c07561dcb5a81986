"""What ``ilu evaluate`` wrote: models side by side on a suite."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Measure(NamedTuple):
    """One metric of one model."""

    value: float
    stderr: float
    n: int


class Evaluated(NamedTuple):
    """A file of scores as a table: metrics down, models across; None where one has none."""

    title: str
    models: Sequence[str]
    metrics: Mapping[str, Sequence[Measure | None]]


def read_evaluation(path: Path) -> Evaluated:
    """Read a file of ``ilu evaluate --out``, or say what is wrong with it."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        models = {str(name): measures(scores) for name, scores in record["models"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no file of scores ({type(error).__name__}: {error}): give one that "
            "ilu evaluate --out has written"
        ) from None
    names = dict.fromkeys(metric for found in models.values() for metric in found)
    table = {name: [found.get(name) for found in models.values()] for name in names}
    return Evaluated(f"{record.get('suite', path.stem)} ({path.name})", list(models), table)


def measures(scores: Mapping[str, Any]) -> dict[str, Measure]:
    """The scores of a model; its other entries say what they were computed from."""
    found = {k: v for k, v in scores.items() if isinstance(v, Mapping) and "value" in v}
    return {
        str(k): Measure(finite(v["value"]), finite(v["stderr"]), int(v["n"]))
        for k, v in found.items()
    }


def finite(x: Any) -> float:
    """A number, and nothing that JSON only pretends to have."""
    if not math.isfinite(number := float(x)):
        raise ValueError(f"{x} is no number")
    return number
