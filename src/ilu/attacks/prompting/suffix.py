"""Adversarial suffixes: tokens after every question that make right answers likely."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ilu.attacks.prompting.kind import ProbeInputs, ProbeKind
from ilu.attacks.prompting.prompts import chosen, correct, disjoint
from ilu.data.stream import collate
from ilu.data.tokenize import encode_pairs, without_end
from ilu.models.forward import ModelForward
from ilu.models.token_math import mean_nll
from ilu.system.scores import Score
from ilu.types import LM, Example, Question, Questions

Tokens = tuple[int, ...]
CUES = (" Answer:", "\nAnswer:")
"""Cues for the answer at the end of a prompt. The suffix goes before the cue."""


@dataclass(frozen=True)
class Budget:
    """Length and search effort of a suffix; GCG has 20, 500, 512 and 256."""

    tokens: int = 8
    steps: int = 20
    candidates: int = 32
    top_k: int = 64
    seed: int = 0


@dataclass(frozen=True)
class Suffix:
    """Accuracy with an adversarial suffix from greedy coordinate gradient (GCG, arXiv 2307.15043).

    One suffix for all questions is optimised to lower the loss of the right options of ``train``,
    and is measured as text on ``questions``. Differences from the paper: all training questions
    count from the start; the loss is that of the answer, not of an affirmative reply; a step that
    raises the loss is rejected; and a suffix must survive decoding and encoding, so that a user
    could type it. ``suffix_loss_before`` and ``_after`` are losses on ``train``.
    """

    questions: Questions
    train: Questions
    budget: Budget = Budget()
    batch_size: int = 128

    def __call__(self, lm: LM) -> dict[str, Score]:
        train, questions = disjoint(self.train(), self.questions())
        suffix = search(lm, slots(lm.tokenizer, train), self.budget)
        changed = [with_text(q, suffix.text) for q in questions]
        return {
            "suffix_accuracy": correct(lm, changed, self.batch_size),
            "suffix_loss_before": chosen(suffix.losses[0]),
            "suffix_loss_after": chosen(suffix.losses[-1]),
        }


class Slot(NamedTuple):
    """Tokens of a question, of the cue after the suffix, and of the right answer."""

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
        tried_losses = [suffix_loss(lm, train, s) for s in tried]
        if tried_losses and min(tried_losses) < losses[-1]:
            suffix = tried[tried_losses.index(min(tried_losses))]
        losses.append(min([losses[-1], *tried_losses]))
    return Search(text_of(lm, train[0], suffix), losses)


def split_cue(prompt: str) -> tuple[str, str]:
    """Split a prompt into question and cue."""
    cue = next((c for c in CUES if prompt.endswith(c)), "")
    return prompt.removesuffix(cue), cue


def with_text(q: Question, text: str) -> Question:
    """A question with a text at its end, before the cue."""
    prompts = (text.join(split_cue(p)) for p in (q.prompt, *q.contexts))
    return q._replace(prompt=next(prompts), contexts=tuple(prompts))


def slots(tokenizer: Any, questions: Sequence[Question]) -> list[Slot]:
    """The questions with known answers, split where the suffix goes."""
    known = [(q.context(q.answer), q.options[q.answer]) for q in questions if q.answer is not None]
    if not known:
        raise ValueError("a suffix is learned from questions with known answers: there are none")
    prompts, options = (list(column) for column in zip(*known, strict=True))
    firsts, cues = zip(*map(split_cue, prompts), strict=True)
    rests = [cue + option for cue, option in zip(cues, options, strict=True)]
    heads = encode_pairs(tokenizer, list(firsts), rests)
    full = encode_pairs(tokenizer, prompts, options)
    return [
        Slot(first, head[len(first) :], tail)
        for (first, _), (head, tail) in zip(heads, full, strict=True)
    ]


def swaps(
    suffix: Tokens, slopes: Float[Tensor, "K V"], budget: Budget, draw: torch.Generator
) -> list[Tokens]:
    """Suffixes with one token replaced by one of the ``top_k`` tokens of lowest slope there."""
    best = (-slopes).topk(min(budget.top_k, slopes.shape[-1])).indices.cpu()
    candidates: dict[Tokens, None] = {}
    for _ in range(budget.candidates):
        place, rank = (
            int(torch.randint(n, (), generator=draw)) for n in (len(suffix), best.shape[-1])
        )
        candidates[(*suffix[:place], int(best[place, rank]), *suffix[place + 1 :])] = None
    return list(candidates)


def with_suffix(train: Sequence[Slot], suffix: Tokens) -> list[Example]:
    """Every question with the suffix; only the answer has a loss."""
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
    """Gradient of the loss with respect to the one-hot vector of each token of the suffix."""
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
    slopes_at_suffix = slopes[torch.arange(len(train))[:, None], places].sum(0)
    return slopes_at_suffix.float() @ embedding.weight.detach().float().T


def text_of(lm: LM, slot: Slot, suffix: Tokens) -> str:
    """The text of the suffix after a question."""
    before, both = (lm.tokenizer.decode(ids) for ids in (slot.before, [*slot.before, *suffix]))
    return both.removeprefix(before)


def writable(lm: LM, slot: Slot, suffix: Tokens) -> bool:
    """Whether the text of the suffix after a question is encoded as the same tokens."""
    tokens = [*slot.before, *suffix, *slot.cue]
    begin = lm.tokenizer("").input_ids
    typed = lm.tokenizer.decode(tokens[len(without_end(list(begin), lm.tokenizer)) :])
    return without_end(list(lm.tokenizer(typed).input_ids), lm.tokenizer) == tokens


LAB = Budget(tokens=2, steps=12, candidates=16)
"""On this small model a longer suffix lowers accuracy more than the search can raise it."""


def suffixed(inputs: ProbeInputs, argument: str) -> Suffix:
    """Put searched tokens behind every question."""
    budget = Budget() if inputs.rows else LAB
    return Suffix(inputs.questions, inputs.few, replace(budget, seed=inputs.seed))


PROBES = {"suffix": ProbeKind(suffixed)}
