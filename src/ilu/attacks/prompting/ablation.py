"""Directional ablation by hooks, on questions: the weights stay as they are."""

from dataclasses import dataclass

from ilu.attacks.ablate import ablating, direction, mean_states
from ilu.attacks.prompting.kind import ProbeInputs, ProbeKind
from ilu.attacks.prompting.prompts import answered, chosen, correct, disjoint
from ilu.system.scores import Score
from ilu.types import LM, Questions


@dataclass(frozen=True)
class Ablation:
    """Accuracy with one direction of the residual stream removed (arXiv 2406.11717).

    r is the normalised difference between the mean hidden states of ``train`` and of ``retain``, at
    the block whose direction gives the highest accuracy on ``train``; ``ablate_choice`` is that
    block. Every hidden state becomes h - r r^T h, and the accuracy is measured on ``questions``.
    """

    questions: Questions
    train: Questions
    retain: Questions
    batch_size: int = 128

    def __call__(self, lm: LM) -> dict[str, Score]:
        train, questions = disjoint(self.train(), self.questions())
        means = [
            mean_states(lm, answered(lm.tokenizer, part), self.batch_size)
            for part in (train, self.retain())
        ]
        directions = [direction(forget, retain) for forget, retain in zip(*means, strict=True)]
        accuracies: list[float] = []
        for r in directions:
            with ablating(lm.model, r):
                accuracies.append(correct(lm, train, self.batch_size).value)
        best = accuracies.index(max(accuracies))
        with ablating(lm.model, directions[best]):
            score = correct(lm, questions, self.batch_size)
        return {"ablate_accuracy": score, "ablate_choice": chosen(best)}


def ablated(inputs: ProbeInputs, argument: str) -> Ablation:
    """Remove one direction of the hidden states."""
    return Ablation(inputs.questions, inputs.some, inputs.solved)


PROBES = {"ablate": ProbeKind(ablated, only_lab=True)}
