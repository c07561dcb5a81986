"""Generic labels from a model that was made to know too much (Who's Harry Potter, 2310.02238)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ilu.data.stream import Stream, collate
from ilu.methods.forget.whp import offset_logits
from ilu.methods.retain.likelihood import NLL
from ilu.models.forward import Frozen, ModelForward
from ilu.models.load import load_model
from ilu.training.fit import Optim, fit
from ilu.training.objective import Term
from ilu.types import Example, Source, Weights


@dataclass(frozen=True)
class Reinforced:
    """``source`` with generic labels beside each text, from ``model`` and a reinforced copy of it.

    The copy is ``model`` fine-tuned on ``source``. Labels are the most likely tokens under
    ``offset_logits``, computed once; both models are gone before unlearning begins.
    """

    source: Source
    model: str
    alpha: float
    optim: Optim
    batch_size: int
    seed: int = 0
    revision: str | None = None

    def __call__(self, tokenizer: Any) -> list[Example]:
        examples = self.source(tokenizer)
        model = load_model(self.model, revision=self.revision, device=fastest()).model
        original = {n: p.detach().clone() for n, p in model.named_parameters()}
        stream = Stream(examples, self.batch_size, self.seed)
        fit(model, {"text": Term(NLL(), on="text")}, {"text": stream}, self.optim)
        return [
            with_generic(example, row)
            for start in range(0, len(examples), self.batch_size)
            for example, row in self.labelled(model, original, examples[start:][: self.batch_size])
        ]

    @torch.no_grad()
    def labelled(
        self, model: nn.Module, original: Weights, examples: Sequence[Example]
    ) -> Iterator[tuple[Example, list[int]]]:
        """Each example with the generic token for each of its tokens but the first."""
        batch = collate(examples).to(next(model.parameters()).device)
        plain, reinforced = (
            forward(batch).logits for forward in (Frozen(model, original), ModelForward(model))
        )
        labels = offset_logits(plain, reinforced, alpha=self.alpha).argmax(-1).tolist()
        return zip(examples, labels, strict=True)


def with_generic(example: Example, labels: list[int]) -> Example:
    """Put the generic tokens beside an example, each in the place of the token it replaces."""
    beside = Example([example.ids[0], *labels[: len(example.ids) - 1]], max(example.prompt, 1))
    return example._replace(others=(beside,))


def fastest() -> str:
    """Where there is a GPU, there."""
    return "cuda" if torch.cuda.is_available() else "cpu"
