"""Adversarial suffixes: tokens after every question that make right answers likely."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ilu.attacks.prompting.prompts import apart, chosen, correct
from ilu.data.stream import collate
from ilu.data.tokenize import encode_pairs, without_end
from ilu.models.forward import ModelForward
from ilu.models.token_math import mean_nll
from ilu.system.scores import Score
from ilu.types import LM, Example, Question, Questions

Tokens = tuple[int, ...]
CUES = (" Answer:", "\nAnswer:")
"""What may close a prompt on behalf of the answer: a suffix ends the question in front of it."""


@dataclass(frozen=True)
class Budget:
    """How long a suffix is, and how much is tried to find it; GCG has 20, 500, 512 and 256."""

    tokens: int = 8
    steps: int = 20
    candidates: int = 32
    top_k: int = 64
    seed: int = 0


@dataclass(frozen=True)
class Suffix:
    """Accuracy with a suffix found by greedy coordinate gradient (GCG, arXiv 2307.15043).

    One suffix at the end of all questions lowers the loss of the right options of ``train``, and is
    measured on ``questions`` as text. Other than in the paper all training questions count from the
    start, the loss is that of an answer and not of an agreement to answer, a step that raises it is
    not taken, and only suffixes are tried that a user could type: their text has their tokens.
    ``suffix_loss_before`` and ``_after`` are losses on ``train``.
    """

    questions: Questions
    train: Questions
    budget: Budget = Budget()
    batch_size: int = 128

    def __call__(self, lm: LM) -> dict[str, Score]:
        train, asked = apart(self.train(), self.questions())
        found = search(lm, slots(lm.tokenizer, train), self.budget)
        changed = [closed(q, found.text) for q in asked]
        return {
            "suffix_accuracy": correct(lm, changed, self.batch_size),
            "suffix_loss_before": chosen(found.losses[0]),
            "suffix_loss_after": chosen(found.losses[-1]),
        }


class Slot(NamedTuple):
    """Tokens of a question, of the cue that follows its suffix, and of the right answer."""

    before: list[int]
    cue: list[int]
    answer: list[int]


class Search(NamedTuple):
    """A suffix as text, and the training loss before the search and after each step."""

    text: str
    losses: list[float]


def search(lm: LM, train: Sequence[Slot], budget: Budget) -> Search:
    """Change one token at a time for ``steps`` steps; the loss never rises."""
    draw = torch.Generator().manual_seed(budget.seed)
    start = lm.tokenizer(" !" * budget.tokens, add_special_tokens=False).input_ids
    suffix = tuple(start[: budget.tokens])
    losses = [suffix_loss(lm, train, suffix)]
    for _ in range(budget.steps):
        slopes = token_slopes(lm, train, suffix)
        slopes[:, lm.tokenizer.all_special_ids] = float("inf")
        tried = [s for s in swaps(suffix, slopes, budget, draw) if writable(lm, train[0], s)]
        found = [suffix_loss(lm, train, s) for s in tried]
        if found and min(found) < losses[-1]:
            suffix = tried[found.index(min(found))]
        losses.append(min([losses[-1], *found]))
    return Search(text_of(lm, train[0], suffix), losses)


def parted(prompt: str) -> tuple[str, str]:
    """A prompt as question and cue."""
    cue = next((c for c in CUES if prompt.endswith(c)), "")
    return prompt.removesuffix(cue), cue


def closed(q: Question, text: str) -> Question:
    """A question with a text at its end, in front of the cue."""
    prompts = (text.join(parted(p)) for p in (q.prompt, *q.contexts))
    return q._replace(prompt=next(prompts), contexts=tuple(prompts))


def slots(tokenizer: Any, asked: Sequence[Question]) -> list[Slot]:
    """The questions with known answers, cut where a suffix goes."""
    known = [(q.context(q.answer), q.options[q.answer]) for q in asked if q.answer is not None]
    if not known:
        raise ValueError("a suffix is learned from questions with known answers: there are none")
    prompts, options = (list(column) for column in zip(*known, strict=True))
    firsts, cues = zip(*map(parted, prompts), strict=True)
    rests = [cue + option for cue, option in zip(cues, options, strict=True)]
    heads = encode_pairs(tokenizer, list(firsts), rests)
    whole = encode_pairs(tokenizer, prompts, options)
    return [
        Slot(first, head[len(first) :], tail)
        for (first, _), (head, tail) in zip(heads, whole, strict=True)
    ]


def swaps(
    suffix: Tokens, slopes: Float[Tensor, "K V"], budget: Budget, draw: torch.Generator
) -> list[Tokens]:
    """Suffixes with one token changed to one of the ``top_k`` of lowest slope at its place."""
    best = (-slopes).topk(min(budget.top_k, slopes.shape[-1])).indices.cpu()
    found: dict[Tokens, None] = {}
    for _ in range(budget.candidates):
        place, rank = (
            int(torch.randint(n, (), generator=draw)) for n in (len(suffix), best.shape[-1])
        )
        found[(*suffix[:place], int(best[place, rank]), *suffix[place + 1 :])] = None
    return list(found)


def with_suffix(train: Sequence[Slot], suffix: Tokens) -> list[Example]:
    """Every question with the suffix; the answer alone takes a loss."""
    return [
        Example([*t.before, *suffix, *t.cue, *t.answer], len(t.before) + len(suffix) + len(t.cue))
        for t in train
    ]


@torch.no_grad()
def suffix_loss(lm: LM, train: Sequence[Slot], suffix: Tokens) -> float:
    """Mean over questions of the loss per answer token."""
    batch = collate(with_suffix(train, suffix)).to(next(lm.model.parameters()).device)
    outputs = ModelForward(lm.model)(batch)
    return mean_nll(outputs.logits, outputs.targets).mean().item()


def token_slopes(lm: LM, train: Sequence[Slot], suffix: Tokens) -> Float[Tensor, "K V"]:
    """Gradient of the loss by the one-hot vector of each token of the suffix."""
    model: Any = lm.model
    embedding = model.get_input_embeddings()
    read: list[Tensor] = []

    def keep(module: Any, inputs: Any, output: Tensor) -> Tensor:
        read.append(output.detach().requires_grad_())
        return read[0]

    hook = embedding.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            batch = collate(with_suffix(train, suffix)).to(embedding.weight.device)
            outputs = ModelForward(model)(batch)
            loss = mean_nll(outputs.logits, outputs.targets).mean()
            (slopes,) = torch.autograd.grad(loss, read)
    finally:
        hook.remove()
    places = torch.tensor([[len(t.before)] for t in train]) + torch.arange(len(suffix))
    own = slopes[torch.arange(len(train))[:, None], places].sum(0)
    return own.float() @ embedding.weight.detach().float().T


def text_of(lm: LM, slot: Slot, suffix: Tokens) -> str:
    """What the suffix looks like after a question."""
    before, both = (lm.tokenizer.decode(ids) for ids in (slot.before, [*slot.before, *suffix]))
    return both.removeprefix(before)


def writable(lm: LM, slot: Slot, suffix: Tokens) -> bool:
    """Whether typing the suffix after a question gives its tokens."""
    wanted = [*slot.before, *suffix, *slot.cue]
    begin = lm.tokenizer("").input_ids
    typed = lm.tokenizer.decode(wanted[len(without_end(list(begin), lm.tokenizer)) :])
    return without_end(list(lm.tokenizer(typed).input_ids), lm.tokenizer) == wanted
