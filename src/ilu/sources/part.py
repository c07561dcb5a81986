"""Some of the examples of a source."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
