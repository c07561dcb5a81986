"""Fine-tuning as an attack: ordinary training on other data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ilu.checkpoint import Checkpoints
from ilu.data import Feed, Stream, open_stream
from ilu.objective import Term
from ilu.retain.likelihood import NLL
from ilu.train import Optim, Row, fit
from ilu.types import LM, STAGES, Example, Metric, Reached, Steps


@dataclass(frozen=True)
class FineTune:
    """Cross-entropy on ``feed``: downstream fine-tuning, or relearning (arXiv 2506.01339).

    Brings its own data and optimiser; reaches ``quarter``, ``half`` and ``end`` of its steps.
    """

    feed: Feed
    optim: Optim
    goals: Mapping[str, Metric] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.optim.steps < 1:
            raise ValueError(f"an attack of {self.optim.steps} steps: it must take at least 1")

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return self.optim.steps

    def data(self, lm: LM) -> Sequence[Example]:
        """What it trains on, checked against the model."""
        return self._stream(lm).examples

    def __call__(self, lm: LM, *, reached: Reached, progress: Steps) -> None:
        self.proceed(lm, reached=reached, progress=progress)

    def proceed(
        self,
        lm: LM,
        *,
        reached: Reached,
        progress: Steps,
        checkpoints: Checkpoints | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Attack, from the last checkpoint if there is one."""
        stages = stages_by_step(self.steps)

        def log(row: Row) -> None:
            done = int(row["step"]) + 1
            progress(done, self.steps)
            for stage in stages.get(done, ()):
                reached(stage)

        streams = {"task": self._stream(lm)}
        fit(
            lm.model,
            {"task": Term(NLL(), on="task")},
            streams,
            self.optim,
            log=log,
            checkpoints=checkpoints,
            stop=stop,
        )

    def _stream(self, lm: LM) -> Stream:
        return open_stream(self.feed, lm, seed=self.seed, name="--task")


def stages_by_step(steps: int) -> dict[int, list[str]]:
    """Step -> the stages reached after it; in a very short attack one step may reach several."""
    found: dict[int, list[str]] = {}
    for stage, fraction in STAGES.items():
        found.setdefault(max(1, round(fraction * steps)), []).append(stage)
    return found
