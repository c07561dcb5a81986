"""Some of the examples of a source, and what is held out of its training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ilu.sources.choice import spread
from ilu.sources.views import picked
from ilu.types import Example, Source


@dataclass(frozen=True)
class Part:
    """Examples ``start`` to ``stop`` of another source."""

    source: Source
    start: int = 0
    stop: int | None = None

    def __call__(self, tokenizer: Any) -> Sequence[Example]:
        examples = self.source(tokenizer)
        if not self.start < len(examples) or (self.stop or 0) > len(examples):
            raise ValueError(
                f"examples {self.start} to {self.stop or 'the last'} of {len(examples)}: there are "
                "not that many"
            )
        return examples[self.start : self.stop]


MOST, LEAST = 200, 100
"""Examples that are held out at most, and those below which none is: there is none to spare."""


def held_out(total: int) -> list[int]:
    """Which examples of a source say how well it was learned: a tenth, spread over all of them."""
    return spread(range(total), min(MOST, total // 10)) if total >= LEAST else []


@dataclass(frozen=True)
class HeldOut:
    """Examples of a source that ``Trained`` leaves out; none of a small one."""

    source: Source

    def __call__(self, tokenizer: Any) -> Sequence[Example]:
        examples = self.source(tokenizer)
        return picked(examples, held_out(len(examples)))


@dataclass(frozen=True)
class Trained:
    """A source without what is held out, and without what equals it."""

    source: Source

    def __call__(self, tokenizer: Any) -> Sequence[Example]:
        examples = self.source(tokenizer)
        left_out = {(tuple((e := examples[i]).ids), e.prompt) for i in held_out(len(examples))}
        rows = [i for i, e in enumerate(examples) if (tuple(e.ids), e.prompt) not in left_out]
        return picked(examples, rows) if left_out else examples
