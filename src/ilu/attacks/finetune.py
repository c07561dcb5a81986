"""Fine-tuning as an attack: standard training on other data."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from ilu.attacks.convergence import Convergence, Parts, answer_accuracy, converged, hold_out
from ilu.data.stream import Feed, Stream, open_stream
from ilu.methods.retain.likelihood import NLL
from ilu.models.blocks import context_length
from ilu.models.lora import Lora, adapted_layers, adapting, warn_of_coverage
from ilu.models.weight_names import named_trained
from ilu.system.errors import Stopped
from ilu.system.scores import Reached, Steps, stages_by_step
from ilu.training.checkpoint import Checkpoints
from ilu.training.fit import Optim, Row, fit
from ilu.training.objective import Term
from ilu.types import LM, Example, Group, Metric


@dataclass(frozen=True)
class FineTune:
    """Cross-entropy on ``feed``: downstream fine-tuning, or relearning (arXiv 2506.01339).

    It has its own data and optimiser. Scores are measured at the stages ``quarter``, ``half`` and
    ``end``, and also every ``every`` steps. With ``only_end`` they are measured only at the end,
    since measuring may take longer than the attack. ``optim.parameters`` is a pattern of the layers
    to train; empty means all. With ``lora``, adapters of these layers are trained instead. With
    ``until`` the attack may end before ``optim.steps``.
    """

    feed: Feed
    optim: Optim
    goals: Mapping[str, Metric | Group] = field(default_factory=dict)
    seed: int = 0
    lora: Lora | None = None
    every: int | None = None
    until: Convergence | None = None
    only_end: bool = False

    def __post_init__(self) -> None:
        if self.optim.steps < 1:
            raise ValueError(f"an attack of {self.optim.steps} steps: it must take at least 1")
        if self.every is not None and self.every < 1:
            raise ValueError(f"a measurement every {self.every} steps: it must be at least 1")
        if self.until and self.every is None:
            raise ValueError("convergence needs an interval between measurements: set `eval_every`")
        if self.only_end and self.every is not None:
            raise ValueError("measure every so many steps or only at the end, not both")

    @property
    def steps(self) -> int:
        """Optimiser steps, at most."""
        return self.optim.steps

    def data(self, lm: LM) -> Sequence[Example]:
        """The training examples. ValueError if the model lacks the layers or the context length."""
        named_trained(lm.model, self.optim.parameters)
        if self.lora:
            layers = adapted_layers(lm.model, self.lora, self.optim.parameters)
            warn_of_coverage(lm.model, layers, self.lora, self.optim.parameters)
        return self.stream(self.parts(lm).trained).examples

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
        """Run the attack, from the last checkpoint if there is one.

        With ``until`` it always starts from the beginning, since convergence needs earlier
        accuracies.
        """
        parts, points = self.parts(lm), self.points()
        accuracies = [self.accuracy(lm, parts)]

        def log(row: Row) -> None:
            done = int(row["step"]) + 1
            progress(done, self.steps)
            for name in points.get(done, ()):
                reached(name)
            if self.every and done % self.every == 0:
                accuracies.append(self.accuracy(lm, parts))

        def over() -> bool:
            return self.until is not None and converged(accuracies, self.until)

        streams = {"task": self.stream(parts.trained)}
        objective = {"task": Term(NLL(), on="task")}
        with adapting(lm.model, self.lora, self.optim.parameters, seed=self.seed) as trained:
            optim = replace(self.optim, parameters=trained.pattern)
            with ending(over):
                fit(
                    trained.model,
                    objective,
                    streams,
                    optim,
                    log=log,
                    checkpoints=None if self.until else checkpoints,
                    stop=lambda: stop() or over(),
                )
        reached("end")

    def parts(self, lm: LM) -> Parts:
        """Examples to train on, and held-out examples to measure convergence on."""
        examples = open_stream(
            self.feed,
            lm.tokenizer,
            limit=context_length(lm.model),
            seed=self.seed,
            name="the data of the attack",
        ).examples
        if self.until is None:
            return Parts(examples, ())
        return hold_out(examples, self.until.held_out, self.seed)

    def stream(self, examples: Sequence[Example]) -> Stream:
        """The training examples as batches."""
        return Stream(examples, self.feed.batch_size, self.seed)

    def accuracy(self, lm: LM, parts: Parts) -> float:
        """Accuracy on the held-out examples; 0 without any."""
        if not parts.held_out:
            return 0.0
        return answer_accuracy(lm, parts.held_out, self.feed.batch_size)

    def points(self) -> dict[int, list[str]]:
        """Step -> the stages reached after it, without the end.

        With ``until`` the number of steps is unknown, so there is no quarter and no half.
        """
        stages = {} if self.until or self.only_end else stages_by_step(self.steps)
        stages_at = {step: [s for s in names if s != "end"] for step, names in stages.items()}
        for step in range(self.every or self.steps, self.steps, self.every or 1):
            stages_at.setdefault(step, []).append(f"step {step}")
        return stages_at


@contextmanager
def ending(over: Callable[[], bool]) -> Generator[None]:
    """Treat a stop because the training is ``over`` as its normal end."""
    try:
        yield
    except Stopped:
        if not over():
            raise
