"""The optimisers by name."""

from typing import Literal

from ilu.optimizers.adam import adamw, adamw8bit
from ilu.optimizers.optimizer import Named, Optimizer
from ilu.optimizers.sgd import sgd
from ilu.optimizers.sophia import Sophia, Soul

Kind = Literal["adamw", "sgd", "sophia", "soul", "adamw8bit", "adamw-bf16"]


def optimizer_for(kind: Kind, named: Named, betas: tuple[float, float] | None) -> Optimizer:
    """An optimiser at its beginning, with its published betas if none are given."""
    match kind:
        case "adamw":
            return adamw(named, betas)
        case "sgd":
            return sgd(named, betas)
        case "sophia":
            return Sophia(named) if betas is None else Sophia(named, betas)
        case "soul":
            return Soul(named) if betas is None else Soul(named, betas)
        case "adamw8bit" | "adamw-bf16":
            return adamw8bit(named, betas)
