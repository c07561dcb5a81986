"""Reading answers off the inner layers."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from ilu.attacks.prompting.prompts import apart, chosen, correct
from ilu.models.blocks import block, blocks
from ilu.system.scores import Score
from ilu.types import LM, Questions


@dataclass(frozen=True)
class LogitLens:
    """Accuracy when the output of an inner block goes straight to the final norm and the head.

    The logit lens (nostalgebraist 2020; as an attack on unlearning: arXiv 2309.17410, 2402.16835).
    ``train`` decides which block is read.
    """

    questions: Questions
    train: Questions
    batch_size: int = 128

    def __call__(self, lm: LM) -> dict[str, Score]:
        train, asked = apart(self.train(), self.questions())
        found: list[float] = []
        for layer in range(len(blocks(lm.model))):
            with cut_after(lm.model, layer):
                found.append(correct(lm, train, self.batch_size).value)
        best = found.index(max(found))
        with cut_after(lm.model, best):
            score = correct(lm, asked, self.batch_size)
        return {"lens_accuracy": score, "lens_layer": chosen(best)}


@contextmanager
def cut_after(model: nn.Module, layer: int) -> Generator[None]:
    """Let the model end with block ``layer``: its output is normed and becomes logits."""
    block(model, layer)
    whole = blocks(model)
    owner, name = next(
        (m, n) for m in model.modules() for n, child in m.named_children() if child is whole
    )
    setattr(owner, name, nn.ModuleList(list(whole)[: layer + 1]))
    try:
        yield
    finally:
        setattr(owner, name, whole)
