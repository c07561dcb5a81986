"""Flags from types, by tyro, the same way for every command."""

from collections.abc import Sequence
from typing import Any

import tyro

Positional = tyro.conf.Positional
CONFIG = (tyro.conf.OmitArgPrefixes, tyro.conf.UseAppendAction)


def parse(kind: Any, prog: str, argv: Sequence[str]) -> Any:
    """Read ``argv`` into the dataclass or function ``kind``; a wrong flag exits with code 2."""
    return tyro.cli(kind, prog=prog, args=list(argv), config=CONFIG)


def flags(argv: Sequence[str], name: str) -> list[str]:
    """The values given to a flag, read before the flags are known: ``--model x``, ``--model=x``."""
    pairs = zip(argv, [*argv[1:], ""], strict=False)
    return [
        b if a == name else a.removeprefix(f"{name}=")
        for a, b in pairs
        if a == name or a.startswith(f"{name}=")
    ]
