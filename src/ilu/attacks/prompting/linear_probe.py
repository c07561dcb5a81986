"""Linear probes: whether hidden states still encode the answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ilu.attacks.prompting.kind import ProbeInputs, ProbeKind
from ilu.attacks.prompting.prompts import chosen, disjoint
from ilu.data.stream import collate
from ilu.data.tokenize import without_end
from ilu.evals.score import mean_score
from ilu.models.forward import every_hidden
from ilu.system.optional import need
from ilu.system.scores import Score
from ilu.types import LM, Example, Question, Questions

States = Float[np.ndarray, "_ D"]
Items = list[float | None]


@dataclass(frozen=True)
class LinearProbe:
    """Accuracy of a logistic regression on the hidden state at the end of a question.

    A linear probe (arXiv 1610.01644; on unlearned models 2402.16835). Its classes are the texts of
    the answers of ``train``, such as letters or recurring values. The option with the largest logit
    is chosen. A question with an option that is not a class is not scored. The block is chosen by
    two-fold cross-validation on ``train``. ``probe_control`` is the accuracy of the same fit on
    shuffled answers, over ``shuffles`` draws (a control task, arXiv 1909.03368). ``probe_chance``
    is the accuracy of guessing. ``strength`` is the inverse of the L2 penalty, on states scaled to
    unit variance.
    """

    questions: Questions
    train: Questions
    strength: float = 0.1
    shuffles: int = 3
    seed: int = 0
    batch_size: int = 128

    def __call__(self, lm: LM) -> dict[str, Score]:
        need("sklearn", "evals", "a linear probe")
        train, questions = disjoint(self.train(), self.questions())
        train = [q for q in train if q.answer is not None]
        x, y = (end_states(lm, part, self.batch_size).numpy() for part in (train, questions))
        best = max(range(len(x)), key=lambda i: cross_accuracy(x[i], train, self.strength))
        labels, draw = answers(train), np.random.default_rng(self.seed)
        controls = [
            probed(x[best], draw.permutation(labels).tolist(), y[best], questions, self.strength)
            for _ in range(self.shuffles)
        ]
        hits = probed(x[best], labels, y[best], questions, self.strength)
        guessed = [None if hit is None else 1 / len(q.options)
                   for hit, q in zip(hits, questions, strict=True)]  # fmt: skip
        return {
            "probe_accuracy": mean_score(hits),
            "probe_control": mean_score([mean(c) for c in zip(*controls, strict=True)]),
            "probe_chance": mean_score(guessed),
            "probe_layer": chosen(best),
        }


def answers(questions: Sequence[Question]) -> list[str]:
    """The right option of each question."""
    return [q.options[q.answer] for q in questions if q.answer is not None]


def mean(items: Sequence[float | None]) -> float | None:
    """Mean over draws; None if a draw has no value."""
    known = [item for item in items if item is not None]
    return sum(known) / len(known) if len(known) == len(items) else None


def cross_accuracy(x: States, questions: Sequence[Question], strength: float) -> float:
    """Accuracy on each half of the questions after fitting on the other half."""
    labels, halves = answers(questions), (slice(0, None, 2), slice(1, None, 2))
    hits = [
        item
        for a, b in (halves, halves[::-1])
        for item in probed(x[a], labels[a], x[b], questions[b], strength)
        if item is not None
    ]
    return sum(hits) / len(hits) if hits else 0.0


def probed(
    x: States, labels: Sequence[str], y: States, questions: Sequence[Question], strength: float
) -> Items:
    """Fit on ``x``; 1 for each question of ``y`` whose right option has the largest logit, else 0.

    None for a question with an option that is not a class.
    """
    from sklearn.linear_model import LogisticRegression

    if len(set(labels)) < 2:
        return [None] * len(questions)
    centre, scale = x.mean(0), x.std(0) + 1e-8
    fitted: Any = LogisticRegression(C=strength, max_iter=300, tol=1e-3)
    fitted.fit((x - centre) / scale, labels)
    place = {str(label): i for i, label in enumerate(fitted.classes_)}
    logits = fitted.predict_log_proba((y - centre) / scale)
    hits: Items = []
    for row, q in zip(logits, questions, strict=True):
        known = q.answer is not None and all(option in place for option in q.options)
        options = [row[place[option]] for option in q.options] if known else []
        hits.append(float(options.index(max(options)) == q.answer) if known else None)
    return hits


def end_states(lm: LM, questions: Sequence[Question], batch_size: int) -> Float[Tensor, "L N D"]:
    """Output of every block at the last token of each question."""
    prompts = [q.prompt for q in questions]
    ids = [without_end(list(i), lm.tokenizer) for i in lm.tokenizer(prompts).input_ids]
    return last_states(lm, [Example(i, 0) for i in ids], batch_size)


@torch.no_grad()
def last_states(lm: LM, examples: Sequence[Example], batch_size: int) -> Float[Tensor, "L N D"]:
    """Output of every block at the last token of each text."""
    states: list[Tensor] = []
    device = next(lm.model.parameters()).device
    for start in range(0, len(examples), batch_size):
        part = examples[start : start + batch_size]
        last = torch.tensor([len(e.ids) - 1 for e in part])
        layers = every_hidden(lm.model, collate(part).to(device))
        states.append(torch.stack([h[torch.arange(len(part)), last].float().cpu() for h in layers]))
    return torch.cat(states, dim=1)


def linear_probe(inputs: ProbeInputs, argument: str) -> LinearProbe:
    """Read the answer from hidden states by a logistic regression."""
    return LinearProbe(inputs.questions, inputs.many, seed=inputs.seed)


PROBES = {"probe": ProbeKind(linear_probe, letters=True)}
