"""Linear probes: whether hidden states still hold the answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ilu.attacks.prompting.prompts import apart, chosen
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
    """Accuracy of a logistic regression that reads the answer off the state at a question's end.

    A linear probe (arXiv 1610.01644; on unlearned models 2402.16835). Its classes are the answers
    of ``train``, as texts: letters, or values that recur; of a question's options the one of
    largest logit is taken, and a question with an option that is no class is not scored. The block
    is chosen by two-fold cross-validation on ``train``. ``probe_control`` is the same fit on
    shuffled answers, over ``shuffles`` draws (in the sense of a control task, arXiv 1909.03368);
    ``probe_chance`` is what guessing gives. ``strength`` is the inverse of the L2 penalty, on
    states scaled to unit variance.
    """

    questions: Questions
    train: Questions
    strength: float = 0.1
    shuffles: int = 3
    seed: int = 0
    batch_size: int = 128

    def __call__(self, lm: LM) -> dict[str, Score]:
        need("sklearn", "evals", "a linear probe")
        train, asked = apart(self.train(), self.questions())
        train = [q for q in train if q.answer is not None]
        x, y = (end_states(lm, part, self.batch_size).numpy() for part in (train, asked))
        best = max(range(len(x)), key=lambda i: cross_accuracy(x[i], train, self.strength))
        labels, draw = answers(train), np.random.default_rng(self.seed)
        controls = [
            probed(x[best], draw.permutation(labels).tolist(), y[best], asked, self.strength)
            for _ in range(self.shuffles)
        ]
        found = probed(x[best], labels, y[best], asked, self.strength)
        guessed = [None if f is None else 1 / len(q.options)
                   for f, q in zip(found, asked, strict=True)]  # fmt: skip
        return {
            "probe_accuracy": mean_score(found),
            "probe_control": mean_score([mean(c) for c in zip(*controls, strict=True)]),
            "probe_chance": mean_score(guessed),
            "probe_layer": chosen(best),
        }


def answers(asked: Sequence[Question]) -> list[str]:
    """The right option of each question."""
    return [q.options[q.answer] for q in asked if q.answer is not None]


def mean(items: Sequence[float | None]) -> float | None:
    """Mean over draws; None where a draw has no value."""
    known = [item for item in items if item is not None]
    return sum(known) / len(known) if len(known) == len(items) else None


def cross_accuracy(x: States, asked: Sequence[Question], strength: float) -> float:
    """Accuracy on each half of the questions after fitting on the other."""
    labels, halves = answers(asked), (slice(0, None, 2), slice(1, None, 2))
    found = [
        item
        for a, b in (halves, halves[::-1])
        for item in probed(x[a], labels[a], x[b], asked[b], strength)
        if item is not None
    ]
    return sum(found) / len(found) if found else 0.0


def probed(
    x: States, labels: Sequence[str], y: States, asked: Sequence[Question], strength: float
) -> Items:
    """Fit on ``x``; per question of ``y``, 1 where its right option has the largest logit.

    None where one of its options is no class.
    """
    from sklearn.linear_model import LogisticRegression

    if len(set(labels)) < 2:
        return [None] * len(asked)
    centre, scale = x.mean(0), x.std(0) + 1e-8
    fitted: Any = LogisticRegression(C=strength, max_iter=300, tol=1e-3)
    fitted.fit((x - centre) / scale, labels)
    place = {str(label): i for i, label in enumerate(fitted.classes_)}
    logits = fitted.predict_log_proba((y - centre) / scale)
    found: Items = []
    for row, q in zip(logits, asked, strict=True):
        known = q.answer is not None and all(option in place for option in q.options)
        options = [row[place[option]] for option in q.options] if known else []
        found.append(float(options.index(max(options)) == q.answer) if known else None)
    return found


def end_states(lm: LM, asked: Sequence[Question], batch_size: int) -> Float[Tensor, "L N D"]:
    """Output of every block at the last token of each question."""
    prompts = [q.prompt for q in asked]
    ids = [without_end(list(i), lm.tokenizer) for i in lm.tokenizer(prompts).input_ids]
    return last_states(lm, [Example(i, 0) for i in ids], batch_size)


@torch.no_grad()
def last_states(lm: LM, examples: Sequence[Example], batch_size: int) -> Float[Tensor, "L N D"]:
    """Output of every block at the last token of each text."""
    found: list[Tensor] = []
    device = next(lm.model.parameters()).device
    for start in range(0, len(examples), batch_size):
        part = examples[start : start + batch_size]
        last = torch.tensor([len(e.ids) - 1 for e in part])
        layers = every_hidden(lm.model, collate(part).to(device))
        found.append(torch.stack([h[torch.arange(len(part)), last].float().cpu() for h in layers]))
    return torch.cat(found, dim=1)
