"""Perturbed examples: several environments from one data set."""

import random
from dataclasses import dataclass
from typing import Any

from ilu.types import Example, Source


@dataclass(frozen=True)
class PerturbedTexts:
    """Examples of ``source`` with a share of the ids before the answer drawn at random.

    Answers stay as they are. ``share`` is between 0 and 1.
    """

    source: Source
    share: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share {self.share:g}: it must be from 0 to 1")

    def __call__(self, tokenizer: Any) -> list[Example]:
        draw, size = random.Random(self.seed), len(tokenizer)
        return [e._replace(ids=self.changed(e, draw, size)) for e in self.source(tokenizer)]

    def changed(self, example: Example, draw: random.Random, size: int) -> list[int]:
        """The ids of one example."""
        head = example.ids[: example.prompt]
        drawn = [draw.randrange(size) if draw.random() < self.share else token for token in head]
        return [*drawn, *example.ids[example.prompt :]]
