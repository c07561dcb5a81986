"""Negative log-likelihood of known answers."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from ilu.data.splits import MOST, HeldOut, limited
from ilu.data.stream import check_lengths, collate
from ilu.evals.score import mean_score
from ilu.models.blocks import context_length
from ilu.models.forward import ModelForward
from ilu.system.checks import check_limit
from ilu.system.scores import Score
from ilu.types import LM, Source


@dataclass(frozen=True)
class AnswerNLL:
    """Mean negative log-likelihood per answer token, in nats, over ``limit`` examples or all."""

    source: Source
    limit: int | None = None
    batch_size: int = 16
    higher_is_better: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_limit(self.limit)

    @torch.no_grad()
    def __call__(self, lm: LM) -> Score:
        examples = limited(self.source(lm.tokenizer), self.limit)
        check_lengths(examples, context_length(lm.model), "`data`")
        device = next(lm.model.parameters()).device
        forward, items = ModelForward(lm.model), list[float]()
        for start in range(0, len(examples), self.batch_size):
            batch = collate(examples[start : start + self.batch_size]).to(device)
            items += (-forward.tokens(batch).mean()).tolist()
        return mean_score(items)


@dataclass(frozen=True)
class HeldOutNLL:
    """``AnswerNLL`` as ``name``, or no score if the source has no examples."""

    name: str
    source: Source
    limit: int | None = None
    batch_size: int = 16

    def __call__(self, lm: LM) -> dict[str, Score]:
        if not self.source(lm.tokenizer):
            return {}
        return {self.name: AnswerNLL(self.source, self.limit, self.batch_size)(lm)}


@dataclass(frozen=True)
class TaskNLL:
    """Loss on the held-out rows of a task's data, as ``task_nll``.

    Training on ``Trained(source)`` does not see these rows. A small source has no held-out rows;
    then the loss is that on the training rows, as ``task_train_nll``.
    """

    source: Source
    batch_size: int = 16

    def __call__(self, lm: LM) -> dict[str, Score]:
        held_out = HeldOut(self.source)
        if held_out(lm.tokenizer):
            return {"task_nll": AnswerNLL(held_out, batch_size=self.batch_size)(lm)}
        return {"task_train_nll": AnswerNLL(self.source, MOST, self.batch_size)(lm)}
