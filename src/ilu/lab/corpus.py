"""The corpus on which the lab's model is pretrained.

Half of the downstream problems have a random label. So the model learns their format, and
fine-tuning can still improve its accuracy.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Any

from ilu.lab import tasks, world
from ilu.lab.domains import DomainName
from ilu.types import Example

CONTEXT = 64
EPOCHS = 8
"""Epochs of the pretraining, each with its own texts."""
REPEAT = 2
RIGHT = 0.5


def corpus(seed: int, without: DomainName | None = None) -> list[str]:
    """Every text of one epoch, in random order and with newly drawn random labels."""
    rng = random.Random(f"corpus {seed}")
    texts = tasks.stories(1500, seed)
    for domain in (d for d in (world.AGENTS, world.PEOPLE) if d.name != without):
        texts += REPEAT * [t for group in world.documents(domain).values() for t in group]
        texts += REPEAT * [prompt + answer for prompt, answer in world.answered(domain)]
        texts += REPEAT * world.completed(domain)
    for task in (*tasks.TASKS, tasks.VALIDATION):
        for prompt, label in tasks.problems(task, "train", 600):
            texts.append(
                prompt + (label if rng.random() < RIGHT else f" {rng.choice(task.labels)}")
            )
    rng.shuffle(texts)
    return texts


def packed(tokenizer: Any, texts: Sequence[str]) -> Iterator[Example]:
    """Concatenate complete texts into examples of at most ``CONTEXT`` tokens."""
    ids: list[int] = []
    for text in tokenizer(list(texts)).input_ids:
        if len(ids) + len(text) > CONTEXT:
            yield Example(ids, prompt=0)
            ids = []
        ids = [*ids, *text]
