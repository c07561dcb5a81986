"""Examples with counterparts for losses that compare: a refusal, or another context."""

import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ilu.data.lazy import mapped
from ilu.data.tokenize import encode_pairs, without_end
from ilu.types import Example, Source

REFUSALS = (
    "I don't know.",
    "I have no idea.",
    "I am not sure about that.",
    "I cannot answer this question.",
    "That is something I never learned.",
    "I have no information on this.",
    "Sorry, this is beyond what I know.",
    "I can't help with that.",
    "No answer comes to my mind.",
    "I would only be guessing.",
)
EXPERT = "What follows was written by a leading expert on the subject, who knows every detail:"
NOVICE = "What follows was written by someone who has never heard of the subject:"


@dataclass(frozen=True)
class Refused:
    """``source`` with one of ``refusals`` as counterpart of each example, after the same prompt.

    In a text without a prompt the refusal replaces the second half. With ``end`` the refusal ends
    with the end-of-text token.
    """

    source: Source
    refusals: tuple[str, ...] = REFUSALS
    seed: int = 0
    end: bool = True

    def __call__(self, tokenizer: Any) -> Sequence[Example]:
        rng, examples = random.Random(self.seed), self.source(tokenizer)
        after_space, after_line = (tails(tokenizer, self.refusals, chat=c) for c in (False, True))
        drawn = array("I", (rng.choice(range(len(self.refusals))) for _ in range(len(examples))))

        def with_refusal(i: int, example: Example) -> Example:
            spaced = begins_with_space(example, tokenizer)
            answer = (after_space if spaced else after_line)[drawn[i]]
            return refused(example, answer, self.closing(example, tokenizer))

        return mapped(examples, with_refusal)

    def closing(self, example: Example, tokenizer: Any) -> list[int]:
        """The end of the example's answer, or else the end-of-text token."""
        if not self.end:
            return []
        if example.end:
            return example.ids[len(example.ids) - example.end :]
        return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]


def begins_with_space(example: Example, tokenizer: Any) -> bool:
    """Whether a refusal in place of the answer begins with a space.

    It does as the answer does; in a text without a prompt it is one more sentence.
    """
    if not example.prompt or not example.words:
        return True
    before = example.ids[example.prompt - 1 : example.prompt]
    text = tokenizer.decode([*before, example.words[0]])
    return text.removeprefix(tokenizer.decode(before))[:1].isspace()


def refused(example: Example, answer: Sequence[int], closing: Sequence[int]) -> Example:
    """Add a refusal as the counterpart of an example."""
    cut = example.prompt or max(1, len(example.ids) // 2)
    ids = [*example.ids[:cut], *answer, *closing]
    return example._replace(others=(Example(ids, cut, end=len(closing)),))


def tails(tokenizer: Any, texts: Sequence[str], *, chat: bool) -> list[list[int]]:
    """Each text as tokens after a prompt, or, as in most chats, after a line break."""
    head, space = ("Answer:\n", "") if chat else ("Answer:", " ")
    pairs = encode_pairs(tokenizer, [head] * len(texts), [f"{space}{text}" for text in texts])
    return [pair.tail for pair in pairs]


@dataclass(frozen=True)
class InContexts:
    """``source`` with counterparts: the same text after an expert's and a novice's introduction."""

    source: Source
    expert: str = EXPERT
    novice: str = NOVICE

    def __call__(self, tokenizer: Any) -> Sequence[Example]:
        heads = [
            without_end(list(ids), tokenizer)
            for ids in tokenizer([f"{self.expert}\n", f"{self.novice}\n"]).input_ids
        ]
        start = tokenizer.bos_token_id
        return mapped(
            self.source(tokenizer),
            lambda i, e: e._replace(others=tuple(after(head, e, start) for head in heads)),
        )


def after(head: list[int], example: Example, start: int | None) -> Example:
    """The example after ``head``, with a loss on the same tokens as without it.

    Without ``head`` the first token is never predicted, so it has no loss here either.
    """
    has_start = bool(example.ids) and example.ids[0] == start
    ids = example.ids[1:] if has_start else example.ids
    prompt = len(head) + max(example.prompt, 1) - has_start
    return Example([*head, *ids], prompt, end=example.end)
