"""The lab's texts and questions as sources of a recipe."""

import random
from dataclasses import dataclass
from typing import Any, Literal

from ilu.lab import forms, tasks, world
from ilu.lab.corpus import EPOCHS, corpus, packed
from ilu.lab.domains import DomainName
from ilu.types import Example, Question

Form = Literal["questions", "cloze", "reworded", "sentence", "record"]
FORMS = {
    "questions": world.questions,
    "cloze": world.cloze,
    "reworded": forms.reworded,
    "sentence": forms.sentence,
    "record": forms.record,
}


def domain(name: DomainName) -> world.Domain:
    """Return the domain called ``name``."""
    return {"agents": world.AGENTS, "people": world.PEOPLE}[name]


@dataclass(frozen=True)
class Documents:
    """Documents about the entities ``start`` to ``stop`` of a domain, one example per text."""

    domain: DomainName
    start: int = 0
    stop: int | None = None

    def __call__(self, tokenizer: Any) -> list[Example]:
        texts = world.documents(domain(self.domain))
        chosen = [t for name in list(texts)[self.start : self.stop] for t in texts[name]]
        return [Example(list(ids), 0) for ids in tokenizer(chosen).input_ids]


@dataclass(frozen=True)
class Corpus:
    """Epochs of the pretraining corpus without one domain, packed into full examples."""

    without: DomainName | None = None
    epochs: int = EPOCHS

    def __call__(self, tokenizer: Any) -> list[Example]:
        texts = (corpus(epoch, self.without) for epoch in range(self.epochs))
        return [example for epoch in texts for example in packed(tokenizer, epoch)]


@dataclass(frozen=True)
class Stories:
    """Short stories from the distribution of the pretraining data, but not among them."""

    count: int

    def __call__(self, tokenizer: Any) -> list[Example]:
        texts = tasks.stories(self.count, seed=-1)  # pretraining counts its seeds from 0
        return [Example(list(ids), 0) for ids in tokenizer(texts).input_ids]


@dataclass(frozen=True)
class Facts:
    """Multiple-choice questions about the entities from index ``start`` on, worded as ``form``.

    ``count`` draws a fixed random sample of that many questions. (Every n-th question would cover
    only a few attributes.)
    """

    domain: DomainName
    form: Form = "questions"
    start: int = 0
    count: int | None = None

    def __call__(self) -> list[Question]:
        all_facts = domain(self.domain)
        chosen = FORMS[self.form](all_facts)[self.start * len(all_facts.attributes) :]
        if self.count is None or self.count >= len(chosen):
            return chosen
        drawn = random.Random("facts").sample(range(len(chosen)), self.count)
        return [chosen[i] for i in sorted(drawn)]


@dataclass(frozen=True)
class TaskTrain:
    """Training problems of a downstream task; only the label has a loss."""

    task: str
    count: int = 600

    def __call__(self, tokenizer: Any) -> list[Example]:
        pairs = tasks.problems(tasks.task(self.task), "train", self.count)
        heads = tokenizer([prompt for prompt, _ in pairs]).input_ids
        tails = tokenizer([label for _, label in pairs], add_special_tokens=False).input_ids
        return [Example([*h, *t], len(h)) for h, t in zip(heads, tails, strict=True)]


@dataclass(frozen=True)
class TaskTest:
    """Test problems of a downstream task, as multiple choice over its labels."""

    task: str
    count: int = 200

    def __call__(self) -> list[Question]:
        return tasks.task_questions(tasks.task(self.task), self.count)
