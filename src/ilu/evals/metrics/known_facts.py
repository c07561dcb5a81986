"""Which facts a model knows, by the wordings of the training documents alone."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ilu.data.facts.sources import FactItems, training_questions
from ilu.data.facts.topics import TopicFact, load_topic
from ilu.evals.metrics.multiple_choice import option_logps, picked
from ilu.models.load import all_files, fingerprint_files, load_model
from ilu.system.atomic import json_hash, write_json
from ilu.system.cache import cache_folder
from ilu.system.locks import alone
from ilu.system.provenance import code_hash
from ilu.types import LM, Question

RULE = "the right answer is the likeliest of four in more than half of the training wordings"


@dataclass(frozen=True)
class KnownFacts:
    """The facts among several sets that a model knows: topic and subject of each.

    A fact is known if the right answer is the likeliest of four in more than half of the training
    wordings. The held-out questions play no part in it. The list is kept in the cache, so every
    model answers questions on the same facts.
    """

    sets: tuple[FactItems, ...]
    model: str

    def __call__(self) -> list[tuple[str, str]]:
        facts = [(item.topic, item.fact) for items in self.sets for item in items()]
        by_item = [training_questions(load_topic(topic), fact) for topic, fact in facts]
        of_model = fingerprint_files(self.model, all_files)
        file = known_folder() / f"{json_hash([of_model, RULE, facts, by_item, code_hash()])}.json"
        if not file.is_file():
            with alone(file, wait=True):
                if not file.is_file():
                    write_known(file, self.model, known(load_model(self.model), facts, by_item))
        found: list[list[str]] = json.loads(file.read_text(encoding="utf-8"))["facts"]
        return [(topic, subject) for topic, subject in found]


def known_folder() -> Path:
    """Where lists of known facts are kept."""
    return cache_folder("known_facts")


def known(
    lm: LM, facts: list[tuple[str, TopicFact]], by_item: list[list[Question]]
) -> list[tuple[str, str]]:
    """Topic and subject of the facts whose questions the model answers in most wordings."""
    every = [question for questions in by_item for question in questions]
    taken = iter(picked(option_logps(lm, every, batch_size=16)))
    right = [sum(next(taken) == q.answer for q in questions) for questions in by_item]
    counts = zip(facts, by_item, right, strict=True)
    return [(topic, fact.subject) for (topic, fact), q, n in counts if 2 * n > len(q)]


def write_known(file: Path, model: str, facts: list[tuple[str, str]]) -> None:
    """Keep the list, with what it is for a reader."""
    record: dict[str, Any] = {"model": model, "rule": RULE, "facts": facts}
    write_json(file, record)
