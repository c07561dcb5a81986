"""Types without tensors: a score, and the progress of an attack or another task.

They are not in ``types.py`` because that imports torch, and the command line starts without it.
"""

from collections.abc import Callable
from typing import NamedTuple


class Score(NamedTuple):
    """A metric's value with its standard error over ``n`` items, and the value of each item.

    An item that cannot be scored is None and is left out of value, error and ``n``; ``unscored``
    counts them. ``chance`` is the value that guessing at random gives; None if it is unknown.
    """

    value: float
    stderr: float
    n: int
    items: tuple[float | None, ...] = ()
    unscored: int = 0
    chance: float | None = None

    def __repr__(self) -> str:
        """The score without its items, of which there may be hundreds."""
        unscored = f", unscored={self.unscored}" if self.unscored else ""
        chance = "" if self.chance is None else f", chance={self.chance:.3g}"
        return f"Score({self.value:.4g} ± {self.stderr:.2g}, n={self.n}{unscored}{chance})"


STAGES = {"quarter": 0.25, "half": 0.5, "end": 1.0}
"""When an attack is measured: after these shares of its steps (arXiv 2506.01339)."""
Reached = Callable[[str], None]
"""Called by an attack at stages of ``STAGES``, each ``step N`` between, and always at the end."""
Steps = Callable[[int, int], None]
"""Called with the number of finished and of all steps."""
Progress = Callable[[str, int, int], None]
"""The same, with the name of the task first."""


def stages_by_step(steps: int) -> dict[int, list[str]]:
    """Step -> the stages reached after it; in a very short attack one step may reach several."""
    found: dict[int, list[str]] = {}
    for stage, fraction in STAGES.items():
        found.setdefault(max(1, round(fraction * steps)), []).append(stage)
    return found
