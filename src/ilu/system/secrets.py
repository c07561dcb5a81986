"""Remove passwords and tokens from everything that is written or printed."""

import os
import re

HIDDEN = "[hidden]"
NAMES = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|API[_-]?KEY|ACCESS[_-]?KEY|CREDENTIALS?)$", re.I)
"""Environment variables whose values are secret."""
SHORTEST = 8
"""Shorter values are not replaced: they may occur in ordinary words."""
PATTERNS = (
    re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{16,}"),  # Hugging Face
    re.compile(r"\b(?:gh[pousr]|github_pat)_[A-Za-z0-9_]{16,}"),  # GitHub
    re.compile(r"\bsk-(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_]{4,}[A-Za-z0-9_-]{12,}"),
    re.compile(r"\bAKIA[A-Z0-9]{12,}"),  # AWS
    re.compile(r"(?<=://)[^\s/@:]+:[^\s/@]+(?=@)"),  # user:password@ in an address
    re.compile(r"(?i)(?<=authorization: bearer )[A-Za-z0-9._~+/-]{8,}"),
    re.compile(r"(?i)(?<=[?&]token=)[^\s&]+"),
    re.compile(r"(?i)(?<=[?&]access_token=)[^\s&]+"),
)


def without_secrets(text: str) -> str:
    """The text with secrets of the environment and likely secrets replaced by ``HIDDEN``."""
    values = {v for k, v in os.environ.items() if NAMES.search(k) and len(v) >= SHORTEST}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    for pattern in PATTERNS:
        text = pattern.sub(HIDDEN, text)
    return text


def hidden_arguments(argv: list[str]) -> list[str]:
    """A command line without secrets, including the values of flags with a secret name."""
    words: list[str] = []
    value_of_secret = False
    for word in argv:
        flag, equals, _ = word.partition("=")
        named = flag.startswith("-") and NAMES.search(flag) is not None
        shown = f"{flag}={HIDDEN}" if named and equals else without_secrets(word)
        words.append(HIDDEN if value_of_secret else shown)
        value_of_secret = named and not equals
    return words


def refuse_secrets(text: str, what: str) -> None:
    """Raise ValueError if ``text`` contains a secret."""
    if without_secrets(text) != text:
        raise ValueError(
            f"{what} would contain a password or token: set it in the environment, as HF_TOKEN"
        )
