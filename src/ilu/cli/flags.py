"""The flags of a command, the same way for every command: help, values, a YAML file."""

import dataclasses
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn, get_type_hints

from ilu.cli.help import help_text
from ilu.cli.reading import read_words
from ilu.cli.yaml_file import as_yaml

SETTING = re.compile(r"`([a-z][a-z_]*)`")
"""A setting as messages of the library name it."""
HELP = {"-h", "--help", "--help-all"}
PRINT = "--print-config"
FILES = "\nFrom a YAML file: --config FILE; print the settings as one: --print-config\n"


def parse(
    kind: Any,
    prog: str,
    argv: Sequence[str],
    description: str | None = None,
    groups: Mapping[str, Sequence[str]] = {},
    basic: Sequence[str] = (),
    head: Mapping[str, str] | None = None,
    omitted: Collection[str] = (),
) -> Any:
    """Read ``argv`` into the dataclass ``kind``; ValueError for a wrong flag or value.

    ``description`` is printed above the flags, by default the docstring of ``kind``. ``groups`` and
    ``basic``: see ``help_text``. ``head``: what precedes the flags, of commands that take
    --config; ``omitted``: settings that --print-config leaves out.
    """
    words = list(argv)
    if HELP & set(words):
        shown = () if "--help-all" in words else basic
        files = "" if head is None else FILES
        print_and_end(help_text(kind, prog, description, groups, shown) + files)
    args = words if head is None else [word for word in words if word != PRINT]
    found = read_words(kind, prog, args)
    if len(args) < len(words):
        print_and_end(as_yaml(kind, found, head or {}, groups, omitted))
    return found


def subset(kind: type, names: Sequence[str], **defaults: Any) -> type:
    """A dataclass with some fields of ``kind``: their types, help and, unless given, defaults."""
    hints = get_type_hints(kind, include_extras=True)
    standard = {f.name: f.default for f in dataclasses.fields(kind)}
    values = {name: defaults.get(name, standard[name]) for name in names}
    fields = [(n, hints[n], dataclasses.field(default=v)) for n, v in values.items()]
    made = dataclasses.make_dataclass(kind.__name__, fields, frozen=True, kw_only=True)
    made.__doc__ = kind.__doc__
    return made


def key_of(word: str) -> str:
    """The setting of a flag: ``micro_batch`` of ``--micro-batch=2``, ``pack`` of ``--no-pack``."""
    flag = word.partition("=")[0].replace("_", "-").replace("--no-", "--", 1)
    return flag.removeprefix("--").replace("-", "_")


def without(argv: Sequence[str], names: Sequence[str]) -> list[str]:
    """The arguments without some flags and their values."""
    kept: list[str] = []
    skip = False
    for a in argv:
        if not (skip or a.partition("=")[0] in names):
            kept.append(a)
        skip = a in names
    return kept


def print_and_end(text: str) -> NoReturn:
    """Print a text and end the command."""
    print(text, end="")  # noqa: T201
    sys.exit(0)


def as_flags(text: str) -> str:
    """A message of the library in which each setting, such as `micro_batch`, is a flag."""
    return SETTING.sub(lambda setting: f"--{setting[1].replace('_', '-')}", text)


def flags(argv: Sequence[str], name: str) -> list[str]:
    """The values given to a flag, read before the flags are known: ``--model x``, ``--model=x``."""
    pairs = zip(argv, [*argv[1:], ""], strict=False)
    return [
        b if a == name else a.removeprefix(f"{name}=")
        for a, b in pairs
        if a == name or a.startswith(f"{name}=")
    ]
