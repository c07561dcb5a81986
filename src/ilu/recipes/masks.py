"""Masks by name: which score, of which loss, and how the largest are chosen."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from ilu.data.stream import Role
from ilu.methods.forget.idk import Refusal
from ilu.methods.forget.rmu import steered_weights
from ilu.methods.masks.choices import Per, Reduce, Unit
from ilu.methods.masks.make import DATA, Masking, Scoring
from ilu.methods.masks.scores import Gradient, Magnitude, Named, Random, Snip, Wanda
from ilu.methods.masks.units import Units
from ilu.methods.masks.wagle import FisherWagle, Wagle
from ilu.methods.retain.likelihood import NLL
from ilu.system.errors import unknown
from ilu.training.objective import Objective


@dataclass(frozen=True)
class Kind:
    """A way of making masks: what it scores, and how it chooses if the user does not say."""

    score: type
    per: Per | Unit
    reduce: Reduce


@dataclass(frozen=True)
class Layers:
    """The last matrices of the three MLPs that RMU trains (arXiv 2403.03218).

    Args:
        layer: block whose output RMU steers; 0 is the first.
    """

    layer: int = 7

    def named(self) -> Named:
        """As a score."""
        return Named(steered_weights(self.layer))


MASKS: dict[str, Kind] = {
    "wagle": Kind(Wagle, "model", "mean"),
    "fisher-wagle": Kind(FisherWagle, "model", "mean"),
    "gradient": Kind(Gradient, "model", "mean"),
    "snip": Kind(Snip, "model", "mean"),
    "magnitude": Kind(Magnitude, "model", "mean"),
    "random": Kind(Random, "model", "mean"),
    "wanda": Kind(Wanda, "row", "mean"),
    "sure": Kind(Gradient, "neurons", "norm"),
    "circuit": Kind(Snip, "modules", "sum"),
    "rmu": Kind(Layers, "model", "mean"),
}
"""Name on the command line -> how a mask is made."""


def mask_kind(name: str) -> Kind:
    """The kind of that name, or what was perhaps meant."""
    if name not in MASKS:
        raise unknown("mask", name, MASKS)
    return MASKS[name]


def choice_of(kind: Kind, per: Per | Unit | None, heads: int | None = None) -> Per | Units:
    """How the largest scores are chosen: as the user says, or as the kind does."""
    wanted = per or kind.per
    if wanted in get_args(Unit):
        return Units(wanted, kind.reduce, heads if wanted == "heads" else None)  # pyright: ignore
    return wanted  # pyright: ignore[reportReturnType]


def mask_setting(
    given: str | None, objective: Objective, *, parameters: str, seed: int
) -> str | Masking | None:
    """What ``mask`` says: a file by its full path, or SCORE:FRACTION.

    The fraction is of the weights that the method trains, whose names match ``parameters``. For
    PO the forget gradient is that of its refusals, as in WAGLE. A random mask has the run's seed.
    """
    if given is None:
        return None
    name, colon, fraction = given.partition(":")
    if not colon or Path(given).exists():
        return str(Path(given).resolve())
    kind = mask_kind(name)
    if kind.score is Layers:
        raise ValueError(f"--mask {given}: make this one with ilu mask {name} --layer L")
    refusing = any(isinstance(term.loss, Refusal) for term in objective.values())
    scoring = Scoring(
        score=Random(seed) if kind.score is Random else kind.score(),
        forget_loss=Refusal() if refusing else NLL(),
        retain_loss=NLL(),
        parameters=parameters,
    )
    return Masking(scoring=scoring, fraction=share(fraction), choice=choice_of(kind, None))


def share(text: str) -> float:
    """A fraction from the command line."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found <= 1:
        raise ValueError(f"mask fraction {text!r}: it must be a number above 0 and at most 1")
    return found


def data_for(mask: str | Masking | None) -> list[Role]:
    """The streams that a mask is made from."""
    if not isinstance(mask, Masking):
        return []
    return list(dict.fromkeys(DATA[need] for need in mask.scoring.score.needs))
