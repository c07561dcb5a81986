"""The world's questions in other forms: what is asked stays the same, fact by fact."""

import random

from ilu.lab.world import Domain, asked, choice, facts, questions
from ilu.types import Question


def reworded(domain: Domain) -> list[Question]:
    """In the phrasing that ``questions`` does not take."""
    rng, taken = random.Random(f"{domain.name} reworded"), {q.prompt for q in questions(domain)}
    found: list[Question] = []
    for f in facts(domain):
        phrases = [asked(phrase.format(e=f.entity)) for phrase in f.attribute.asked]
        found.append(choice(next(p for p in phrases if p not in taken), f, 4, rng))
    return found


def told(domain: Domain) -> list[Question]:
    """As a sentence of a document that breaks off before the value."""
    rng = random.Random(f"{domain.name} told")
    return [
        choice(f.attribute.told[0].format(e=f.entity, v="").rstrip(" ."), f, 4, rng)
        for f in facts(domain)
    ]


def record(domain: Domain) -> list[Question]:
    """Translated into a form that no text of the world has: the entry of a record."""
    rng = random.Random(f"{domain.name} record")
    return [choice(f"{f.entity}, {f.attribute.name}:", f, 4, rng) for f in facts(domain)]
