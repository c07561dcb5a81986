"""What a model answers to prompts, as a chat where the tokenizer has a chat template."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ilu.data.chat import question_ids
from ilu.data.tokenize import without_end
from ilu.evals.metrics.generation import check_room, continuations, decoding, end_tokens
from ilu.models.blocks import context_length
from ilu.system.seeds import seeded
from ilu.types import LM

HALF = "\ufffd"
"""What a tokenizer gives for a character of which some bytes are still to come."""


@dataclass(frozen=True)
class Answering:
    """Settings of a generation; ``chat`` puts a prompt into the chat template if there is one.

    Greedy at temperature 0.
    """

    chat: bool = True
    max_new_tokens: int = 128
    temperature: float = 0.0
    seed: int = 0
    batch_size: int = 8

    def __call__(self, lm: LM, prompts: Sequence[str]) -> list[str]:
        """The answers, in the order of the prompts."""
        with seeded(self.seed, device_of(lm)):
            return continuations(
                lm,
                [self.head(lm.tokenizer, prompt) for prompt in prompts],
                max_new_tokens=self.max_new_tokens,
                batch_size=self.batch_size,
                temperature=self.temperature,
            )

    def head(self, tokenizer: Any, prompt: str) -> list[int]:
        """The tokens that the answer follows."""
        if not (self.chat and tokenizer.chat_template):
            return without_end(list(tokenizer(prompt).input_ids), tokenizer)
        return question_ids(prompt, tokenizer)

    @torch.no_grad()
    def stream(self, lm: LM, prompt: str, show: Callable[[str], None]) -> None:
        """Pass the answer to ``show`` piece by piece, while it is generated."""
        model: Any = lm.model
        head, ends = self.head(lm.tokenizer, prompt), end_tokens(lm)
        check_room([head], self.max_new_tokens, context_length(model))
        if self.temperature and lm.tokenizer.bos_token_id is not None:
            ends.add(lm.tokenizer.bos_token_id)
        ids = torch.tensor([head], device=device_of(lm))
        mask, pieces = torch.ones_like(ids), Pieces(lm.tokenizer, show)
        with (
            seeded(self.seed, device_of(lm)),
            decoding(model, ends, self.max_new_tokens, self.temperature),
        ):
            model.generate(input_ids=ids, attention_mask=mask, streamer=pieces)


@dataclass
class Pieces:
    """Receives tokens from ``generate`` and passes on the text that they add."""

    tokenizer: Any
    show: Callable[[str], None]
    ids: list[int] = field(default_factory=list[int])
    shown: str = ""
    prompt_seen: bool = False

    def put(self, value: torch.Tensor) -> None:
        """Take the next token; the first call brings the prompt."""
        if not self.prompt_seen:
            self.prompt_seen = True
            return
        self.ids += value.flatten().tolist()
        text = self.text()
        if not text.endswith(HALF):
            self.pass_on(text)

    def end(self) -> None:
        """Pass on what is left."""
        self.pass_on(self.text())

    def text(self) -> str:
        """All new text so far."""
        return str(self.tokenizer.decode(self.ids, skip_special_tokens=True))

    def pass_on(self, text: str) -> None:
        """Show what was not shown yet."""
        if len(text) > len(self.shown):
            self.show(text[len(self.shown) :])
            self.shown = text


def device_of(lm: LM) -> torch.device:
    """Where a model's weights are."""
    return next(lm.model.parameters()).device
