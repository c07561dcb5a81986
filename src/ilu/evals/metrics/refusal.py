"""Detects refusals in generated text."""

import re

REFUSING = (
    r"\bi (?:do not|don't) (?:know|remember|recall|have (?:any|that|access|enough|information))",
    r"\bi (?:can ?not|can't|have no|never learned)",
    r"\bi(?: am|'m) (?:unable|not able|not sure|unsure)",
    r"\bi would only be guessing",
    r"^(?:i am |i'm )?sorry\b",
    r"\b(?:i apologi[sz]e|no idea|no answer comes to my mind)\b",
    r"\bbeyond (?:what i know|my knowledge)",
)
"""Patterns in the first sentence of a refusal. English only."""


def refuses(text: str) -> bool:
    """Whether the first sentence is a refusal; a text that refuses later has already answered.

    The patterns match words, so a quoted refusal counts as well.
    """
    first = re.split(r"[.!?\n]", text.strip().lower().replace("\u2019", "'"), maxsplit=1)[0]
    return any(re.search(pattern, first) for pattern in REFUSING)
