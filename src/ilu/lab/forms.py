"""Questions about the same facts of the world in other forms."""

import random

from ilu.lab.world import Domain, as_prompt, choice, facts, questions
from ilu.types import Question


def reworded(domain: Domain) -> list[Question]:
    """With the question template that ``questions`` does not use for the fact."""
    rng, used = random.Random(f"{domain.name} reworded"), {q.prompt for q in questions(domain)}
    reworded: list[Question] = []
    for f in facts(domain):
        phrases = [as_prompt(phrase.format(e=f.entity)) for phrase in f.attribute.questions]
        reworded.append(choice(next(p for p in phrases if p not in used), f, 4, rng))
    return reworded


def sentence(domain: Domain) -> list[Question]:
    """As a sentence from a document that ends before the value."""
    rng = random.Random(f"{domain.name} told")  # the name of this form until 0.1
    return [
        choice(f.attribute.sentences[0].format(e=f.entity, v="").rstrip(" ."), f, 4, rng)
        for f in facts(domain)
    ]


def record(domain: Domain) -> list[Question]:
    """As an entry of a record, a format that occurs in no text of the world."""
    rng = random.Random(f"{domain.name} record")
    return [choice(f"{f.entity}, {f.attribute.name}:", f, 4, rng) for f in facts(domain)]
