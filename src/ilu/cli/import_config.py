"""``ilu import-config``: a configuration of the original code as a command of this one."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ilu.cli.flags import parse
from ilu.cli.help import Positional
from ilu.cli.terminal import console, errors
from ilu.recipes.wagle_configs import translate


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Translate a JSON configuration of the original WAGLE and ILU code into a command.

    The command goes to standard output; what could not be translated, and every key that is not an
    option of the original, to standard error.

    Example: ilu import-config configs/unlearn/Tofu/NPO+WAGLE.json

    Args:
        file: the configuration.
    """

    file: Positional[Path]


def main(argv: Sequence[str]) -> None:
    """Carry out the command."""
    wanted: ImportConfig = parse(ImportConfig, "ilu import-config", argv)
    found = translate(read(wanted.file))
    console.print(multiline(found.command), markup=False, soft_wrap=True)
    for note in found.notes:
        errors.print(f"note: {note}", markup=False, soft_wrap=True)
    for key in found.unknown:
        errors.print(f"unknown: {key} is no option of the original", markup=False, soft_wrap=True)


def read(path: Path) -> dict[str, Any]:
    """The configuration; ValueError if it is not a JSON object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} contains a {type(found).__name__}: a configuration is an object")
    return found


def multiline(command: Sequence[str]) -> str:
    """A command for a shell, a flag per line."""
    words = [shlex.quote(word) for word in command]
    return " ".join(f"\\\n    {w}" if w.startswith("--") else w for w in words)
