"""One step of an optimiser on the weights that may change."""

from ilu.system.distributed import Ranks
from ilu.training.optim.masked import Moving
from ilu.training.optim.protocol import Optimizer, update


def move_weights(
    free: Moving,
    optimizer: Optimizer,
    *,
    step: int,
    rate: float,
    decay: float,
    clip: float | None,
    ranks: Ranks,
) -> float:
    """Update the weights unless a gradient is not finite; return the gradient norm."""
    free.gather()
    norm = update(free.parts, optimizer, step=step, rate=rate, decay=decay, clip=clip, ranks=ranks)
    free.scatter()
    return norm
