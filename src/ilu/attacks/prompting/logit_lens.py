"""The logit lens: answers decoded from inner layers."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from ilu.attacks.prompting.kind import ProbeInputs, ProbeKind
from ilu.attacks.prompting.prompts import chosen, correct, disjoint
from ilu.models.blocks import block, blocks
from ilu.system.scores import Score
from ilu.types import LM, Questions


@dataclass(frozen=True)
class LogitLens:
    """Accuracy when the output of an inner block goes directly to the final norm and the LM head.

    The logit lens (nostalgebraist 2020; as an attack on unlearning: arXiv 2309.17410, 2402.16835).
    The block is the one of highest accuracy on ``train``.
    """

    questions: Questions
    train: Questions
    batch_size: int = 128

    def __call__(self, lm: LM) -> dict[str, Score]:
        train, questions = disjoint(self.train(), self.questions())
        accuracies: list[float] = []
        for layer in range(len(blocks(lm.model))):
            with cut_after(lm.model, layer):
                accuracies.append(correct(lm, train, self.batch_size).value)
        best = accuracies.index(max(accuracies))
        with cut_after(lm.model, best):
            score = correct(lm, questions, self.batch_size)
        return {"lens_accuracy": score, "lens_layer": chosen(best)}


@contextmanager
def cut_after(model: nn.Module, layer: int) -> Generator[None]:
    """Remove all blocks after ``layer``: its output goes to the final norm and the LM head."""
    block(model, layer)
    layers = blocks(model)
    owner, name = next(
        (m, n) for m in model.modules() for n, child in m.named_children() if child is layers
    )
    setattr(owner, name, nn.ModuleList(list(layers)[: layer + 1]))
    try:
        yield
    finally:
        setattr(owner, name, layers)


def logit_lens(inputs: ProbeInputs, argument: str) -> LogitLens:
    """Decode the answer from an inner block."""
    return LogitLens(inputs.questions, inputs.some)


PROBES = {"lens": ProbeKind(logit_lens)}
