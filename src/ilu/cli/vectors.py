"""``ilu vectors``: angles and lengths of task vectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ilu.cli.parse import Positional, parse
from ilu.cli.show import number, print_json, table
from ilu.models import model_path, read_weights
from ilu.types import Weights
from ilu.vectors import by_module, cosine, length, task_vector


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """Angles between task vectors of one model: unlearning, and fine-tuning after it.

    Example: ilu vectors lab runs/first/model runs/mood/attacks/mood/model

    Args:
        original: folder of the model before unlearning, or lab.
        unlearned: folder of the unlearned model.
        finetuned: folder of the unlearned model after fine-tuning.
        tuned_original: folder of the original after the same fine-tuning, for two more cosines.
        json: print JSON.
    """

    original: Positional[str]
    unlearned: Positional[str]
    finetuned: Positional[str]
    tuned_original: str | None = None
    json: bool = False


def vectors(argv: Sequence[str]) -> None:
    """Carry out ``ilu vectors``."""
    wanted: Vectors = parse(Vectors, "ilu vectors", argv)
    o, u, f = (weights(n) for n in (wanted.original, wanted.unlearned, wanted.finetuned))
    tau_u, after = task_vector(o, u), task_vector(u, f)
    found: dict[str, Any] = {
        "norms": {"u": length(tau_u), "ft_after_u": length(after)},
        "cosines": {"ft_after_u__u": cosine(after, tau_u)},
        "norms_by_module": {"u": by_module(tau_u), "ft_after_u": by_module(after)},
    }
    if wanted.tuned_original:
        tau_ft = task_vector(o, weights(wanted.tuned_original))
        found["norms"]["ft"] = length(tau_ft)
        found["cosines"]["ft_after_u__ft"] = cosine(after, tau_ft)
        found["cosines"]["u__ft"] = cosine(tau_u, tau_ft)
    if wanted.json:
        print_json(found)
        return
    rows = [
        (f"{kind[:-1]} {k}", number(v))
        for kind in ("norms", "cosines")
        for k, v in found[kind].items()
    ]
    table("task vectors", ("", "value"), rows)
    moved = found["norms_by_module"]
    rows = [(k, number(v), number(moved["ft_after_u"][k])) for k, v in moved["u"].items()]
    table("norms by module", ("module", "u", "ft_after_u"), rows)


def weights(name: str) -> Weights:
    """Weights of a model folder."""
    folder = Path(model_path(name))
    if not folder.is_dir():
        raise ValueError(f"{name!r} is not a model folder")
    return read_weights(folder)
