"""Masks by name: the score, its losses, and the selection of the largest scores."""

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
    """A kind of mask: its score, its default selection, and its reduction."""

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
        """The layers as a score."""
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
    """The kind of that name; an unknown name raises ValueError with a suggestion."""
    if name not in MASKS:
        raise unknown("mask", name, MASKS)
    return MASKS[name]


def choice_of(kind: Kind, per: Per | Unit | None, heads: int | None = None) -> Per | Units:
    """The selection of the largest scores: the user's choice, or else the kind's default."""
    choice = per or kind.per
    if choice in get_args(Unit):
        return Units(choice, kind.reduce, heads if choice == "heads" else None)  # pyright: ignore
    return choice  # pyright: ignore[reportReturnType]


def mask_setting(
    setting: str | None, objective: Objective, *, parameters: str, seed: int
) -> str | Masking | None:
    """The value of ``mask``: a file by its full path, or a mask to make for SCORE:FRACTION.

    FRACTION is a share of the weights that the method trains, whose names match ``parameters``. For
    PO the forget gradient is that of its refusals, as in WAGLE. A random mask uses the run's seed.
    """
    if setting is None:
        return None
    name, colon, fraction = setting.partition(":")
    if not colon or Path(setting).exists():
        return str(Path(setting).resolve())
    kind = mask_kind(name)
    if kind.score is Layers:
        raise ValueError(f"`mask` {setting}: make this one with ilu mask {name} --layer L")
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
        fraction = float(text)
    except ValueError:
        fraction = 0.0
    if not 0 < fraction <= 1:
        raise ValueError(f"mask fraction {text!r}: it must be a number above 0 and at most 1")
    return fraction


def data_for(mask: str | Masking | None) -> list[Role]:
    """The streams that a mask is made from."""
    if not isinstance(mask, Masking):
        return []
    return list(dict.fromkeys(DATA[need] for need in mask.scoring.score.needs))
