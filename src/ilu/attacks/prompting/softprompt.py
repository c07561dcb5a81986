"""Soft prompts: continuous vectors before every text, optimised to make right answers likely."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ilu.attacks.prompting.kind import ProbeInputs, ProbeKind
from ilu.attacks.prompting.prompts import answered, chosen, disjoint
from ilu.data.stream import collate
from ilu.data.tokenize import encode_pairs, without_end
from ilu.evals.metrics.multiple_choice import accuracy, picked
from ilu.models.blocks import context_length
from ilu.models.forward import ModelForward
from ilu.models.token_math import mean_nll
from ilu.system.scores import Score
from ilu.types import LM, Batch, Example, Question, Questions

Vectors = Float[Tensor, "K D"]


@dataclass(frozen=True)
class SoftPrompt:
    """Accuracy with ``tokens`` optimised embedding vectors before every question.

    The embedding attack of arXiv 2402.09063, with one soft prompt (arXiv 2104.08691) for all
    questions: Adam lowers the loss of the right options of ``train``, and the vectors are measured
    on ``questions``, which are others. They start as random vectors of the root mean square
    of the embeddings, in units of which ``lr`` is. Difference from the embedding attack: the loss
    is that of the answer and not of an affirmative reply, and the vectors stand before the
    question, after the beginning-of-text token: between question and answer they lowered the
    accuracy of our small model before unlearning as well. A soft prompt also teaches the form of
    the answers: the same attack on a model that never knew tells how much.
    """

    questions: Questions
    train: Questions
    tokens: int = 8
    steps: int = 100
    lr: float = 0.1
    seed: int = 0
    batch_size: int = 32

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.steps < 1 or not self.lr > 0:
            raise ValueError(
                f"a soft prompt of {self.tokens} vectors, {self.steps} steps of {self.lr:g}: "
                "vectors and steps must be at least 1, and the learning rate above 0"
            )

    def __call__(self, lm: LM) -> dict[str, Score]:
        train, questions = disjoint(self.train(), self.questions())
        found = optimised(lm, answered(lm.tokenizer, train), self)
        logps = soft_logps(lm, questions, found.vectors, self.batch_size)
        return {
            "softprompt_accuracy": accuracy(picked(logps), questions),
            "softprompt_loss_before": chosen(found.losses[0]),
            "softprompt_loss_after": chosen(found.losses[-1]),
        }


class Optimised(NamedTuple):
    """The vectors of a soft prompt, and the loss of each step's examples before the step."""

    vectors: Vectors
    losses: list[float]


def optimised(lm: LM, examples: Sequence[Example], settings: SoftPrompt) -> Optimised:
    """Vectors after ``steps`` steps of Adam on batches of ``examples``, all other weights fixed."""
    model: Any = lm.model
    weight = model.get_input_embeddings().weight.detach()
    draw = torch.Generator().manual_seed(settings.seed)
    scale = weight.float().square().mean().sqrt()
    start = torch.randn(settings.tokens, weight.shape[1], generator=draw).to(weight)
    vectors = (scale * start).requires_grad_()
    adam = torch.optim.Adam([vectors], lr=settings.lr * float(scale))
    losses: list[float] = []
    for _, batch in zip(range(settings.steps), rounds(examples, settings, draw), strict=False):
        with torch.enable_grad():
            loss = soft_loss(lm, batch, vectors)
            (vectors.grad,) = torch.autograd.grad(loss, [vectors])
        adam.step()
        losses.append(loss.item())
    return Optimised(vectors.detach(), losses)


def rounds(
    examples: Sequence[Example], settings: SoftPrompt, draw: torch.Generator
) -> Iterator[list[Example]]:
    """Batches without an end, in a new order in every round."""
    while True:
        order: list[int] = torch.randperm(len(examples), generator=draw).tolist()
        for start in range(0, len(order), settings.batch_size):
            yield [examples[i] for i in order[start : start + settings.batch_size]]


def soft_loss(lm: LM, examples: Sequence[Example], vectors: Vectors) -> Float[Tensor, ""]:
    """Mean over examples of the loss per answer token, after the soft prompt."""
    batch, starts = with_room(lm, examples, len(vectors))
    with soft(lm, vectors, starts):
        outputs = ModelForward(lm.model)(batch)
    return mean_nll(outputs.logits, outputs.targets).mean()


def with_room(lm: LM, examples: Sequence[Example], count: int) -> tuple[Batch, list[int]]:
    """The examples with ``count`` positions before their texts, and where these begin."""
    begin = without_end(list(lm.tokenizer("").input_ids), lm.tokenizer)
    starts = [len(begin) if e.ids[: len(begin)] == begin else 0 for e in examples]
    wider = [
        Example([*e.ids[:at], *[0] * count, *e.ids[at:]], e.prompt + count)
        for e, at in zip(examples, starts, strict=True)
    ]
    return collate(wider).to(next(lm.model.parameters()).device), starts


@contextmanager
def soft(lm: LM, vectors: Vectors, starts: Sequence[int]) -> Generator[None]:
    """Put the vectors in place of the embeddings of row i from position ``starts[i]`` on."""
    model: Any = lm.model
    places = torch.tensor(starts)[:, None] + torch.arange(len(vectors))
    rows = torch.arange(len(starts))[:, None]

    def replace(module: Any, inputs: Any, output: Tensor) -> Tensor:
        changed = output.clone()
        changed[rows, places] = vectors.to(output)
        return changed

    hook = model.get_input_embeddings().register_forward_hook(replace)
    try:
        yield
    finally:
        hook.remove()


@torch.no_grad()
def soft_logps(
    lm: LM, questions: Sequence[Question], vectors: Vectors, batch_size: int
) -> list[list[float | None]]:
    """Log-likelihood of every option after the soft prompt; None where it is too long."""
    places = [(i, k) for i, q in enumerate(questions) for k in range(len(q.options))]
    prompts = [questions[i].context(k) for i, k in places]
    pairs = encode_pairs(lm.tokenizer, prompts, [questions[i].options[k] for i, k in places])
    limit = context_length(lm.model)
    known = [
        (place, Example([*head, *tail], len(head)))
        for place, (head, tail) in zip(places, pairs, strict=True)
        if head and tail and (limit is None or len(head) + len(tail) + len(vectors) <= limit)
    ]
    logps: list[list[float | None]] = [[None] * len(q.options) for q in questions]
    for start in range(0, len(known), batch_size):
        part = known[start : start + batch_size]
        batch, starts = with_room(lm, [example for _, example in part], len(vectors))
        with soft(lm, vectors, starts):
            sums = ModelForward(lm.model).tokens(batch).sum().tolist()
        for ((i, k), _), value in zip(part, sums, strict=True):
            logps[i][k] = value
    return logps


def soft_prompt(inputs: ProbeInputs, argument: str) -> SoftPrompt:
    """Put optimised vectors before every question; softprompt:N has N vectors."""
    found = SoftPrompt(inputs.questions, inputs.many, seed=inputs.seed)
    if not argument:
        return found
    if not argument.isdecimal():
        raise ValueError("give a number of vectors, as in softprompt:8")
    return replace(found, tokens=int(argument))


PROBES = {"softprompt": ProbeKind(soft_prompt, argument=True)}
