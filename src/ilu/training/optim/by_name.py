"""The optimisers by name."""

from ilu.training.optim.adamw import adamw, adamw8bit
from ilu.training.optim.mezo import MeZO
from ilu.training.optim.protocol import Named, Optimizer
from ilu.training.optim.settings import Kind
from ilu.training.optim.sgd import sgd
from ilu.training.optim.sign import BETA, SignDescent
from ilu.training.optim.sophia import Sophia


def optimizer_for(kind: Kind, named: Named, betas: tuple[float, float] | None) -> Optimizer:
    """A new optimiser, with its published betas if none are given."""
    match kind:
        case "adamw":
            return adamw(named, betas)
        case "sgd":
            return sgd(named, betas)
        case "signsgd":
            return SignDescent(named, betas[0] if betas else BETA)
        case "mezo":
            return MeZO(named)
        case "sophia":
            return Sophia(named) if betas is None else Sophia(named, betas)
        case "adamw8bit" | "adamw-bf16":
            return adamw8bit(named, betas)
