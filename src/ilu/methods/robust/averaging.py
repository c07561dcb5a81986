"""Weight averaging over the last steps of training."""

from dataclasses import dataclass, replace

from ilu.methods.ending import Ending
from ilu.training.fit import Optim
from ilu.training.objective import Term


@dataclass(frozen=True)
class Averaging:
    """Average the weights of the last steps (WA, arXiv 2502.05374).

    Published with token NPO on WMDP: lr 5.5e-6, beta 0.05, gamma 2.

    Args:
        last: share of the steps to average over, from the end; published: 100 to 125 of 125.
    """

    last: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.last <= 1:
            raise ValueError(f"`last` {self.last}: a share of the steps, above 0 and at most 1")


def unchanged(term: Term, settings: Averaging, forgets: bool) -> Term:
    """The unchanged term: only the training settings change."""
    return term


def averaged(optim: Optim, settings: Averaging) -> Optim:
    """Average over the last share of the steps, unless ``average_from`` is set."""
    if optim.average_from is not None:
        return optim
    return replace(optim, average_from=max(1, round((1 - settings.last) * optim.steps)))


ENDINGS = {"wa": Ending(Averaging, unchanged, averaged, adapters=False)}
