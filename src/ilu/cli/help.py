"""The help of a command, written from the dataclass of its flags: at most 80 columns."""

import dataclasses
import inspect
import re
import shutil
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import docstring_parser

T = TypeVar("T")
POSITIONAL = "positional"
Positional = Annotated[T, POSITIONAL]
"""The type of a setting that is given without a flag."""
WIDTH = 80
INDENT = " " * 6
WORDS: Mapping[Any, str] = {int: "INT", float: "FLOAT", Path: "PATH", str: "TEXT"}


VALUE = re.compile(r"(--[\w-]+) (?=[^-\s\\])")
"""A flag with the space before its value, where a line is not broken."""


class Flag(NamedTuple):
    """A setting: how it is given, what it means, its group and its type.

    ``shown`` is its name on the command line, ``given`` has the placeholder of its value as well.
    ``meaning`` is ``about`` with the default.
    """

    name: str
    shown: str
    given: str
    about: str
    meaning: str
    group: str
    hint: Any
    positional: bool
    required: bool

    @property
    def optional(self) -> bool:
        """Whether the value may be None."""
        return types.NoneType in get_args(self.hint)


def help_text(
    kind: type,
    prog: str,
    description: str | None = None,
    groups: Mapping[str, Sequence[str]] = {},
    basic: Sequence[str] = (),
) -> str:
    """The help. ``groups``: title -> its settings; other settings are grouped by dataclass.

    With ``basic``, only these settings are shown.
    """
    every = list(flags_of(kind, kind, "Flags"))
    home = {name: title for title, names in groups.items() for name in names}
    shown: dict[str, list[Flag]] = {title: [] for title in groups}
    for flag in every:
        if not basic or flag.name in basic:
            shown.setdefault(home.get(flag.name, flag.group), []).append(flag)
    positional = [flag.given for flag in every if flag.positional]
    parts = wrapped(" ".join(["usage:", prog, *positional, "[flags]"]), "  ")
    parts += ["", *described(description or inspect.getdoc(kind) or "")]
    for title, flags in shown.items():
        if flags:
            parts += [f"{title}:", *(line for flag in flags for line in lines(flag)), ""]
    hidden = len(every) - sum(map(len, shown.values()))
    parts += [f"{hidden} more flags: {prog} --help-all"] if hidden else []
    return "\n".join(parts).rstrip() + "\n"


def width() -> int:
    """Columns of the help: those of the terminal, at most ``WIDTH``."""
    return min(WIDTH, max(40, shutil.get_terminal_size((WIDTH, 24)).columns))


def wrapped(text: str, indent: str = "", first: str = "") -> list[str]:
    """Lines of at most ``width``; a word is never cut at its hyphens."""
    return textwrap.wrap(
        text, width(), initial_indent=first, subsequent_indent=indent, break_on_hyphens=False
    )


def described(text: str) -> Iterator[str]:
    """The paragraphs of a docstring without its arguments."""
    for paragraph in text.split("Args:")[0].strip().split("\n\n"):
        one = " ".join(paragraph.split())
        yield from wrapped(one, "    " if one.startswith(("Example:", "*")) else "")
        yield ""


def flags_of(kind: type, values: Any, group: str) -> Iterator[Flag]:
    """Every setting of a dataclass and of the dataclasses in it.

    ``values`` has the defaults: the class itself, or an instance.
    """
    marked = get_type_hints(kind, include_extras=True)
    hints = hints_of(kind)
    parsed = docstring_parser.parse(inspect.getdoc(kind) or "")
    meanings = {p.arg_name: " ".join((p.description or "").split()) for p in parsed.params}
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        default = default_of(field, values)
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            inner = hint if default is dataclasses.MISSING else default
            yield from flags_of(hint, inner, field.name.capitalize())
            continue
        positional = POSITIONAL in get_args(marked[field.name])
        yield flag(field.name, hint, meanings.get(field.name, ""), default, group, positional)


def hints_of(kind: type) -> dict[str, Any]:
    """The types of the settings of a dataclass, without their marks."""
    return get_type_hints(kind)


def default_of(field: "dataclasses.Field[Any]", values: Any) -> Any:
    """The default of a setting, MISSING if it is required."""
    return field.default if isinstance(values, type) else getattr(values, field.name)


def flag(name: str, hint: Any, about: str, default: Any, group: str, positional: bool) -> Flag:
    """A setting in words."""
    required = default is dataclasses.MISSING
    shown, given = positional_words(name, hint, required) if positional else dashed(name, hint)
    meaning = about
    if hint is bool and default is True:
        given, meaning = f"--no-{shown[2:]}", f"{shown} is the default: {about}"
    elif not positional and required:
        meaning += " (required)"
    elif not positional and hint is not bool and default not in (None, "", ()):
        meaning += f" (default: {written(default)})"
    return Flag(name, shown, given, about, meaning, group, hint, positional, required)


def dashed(name: str, hint: Any) -> tuple[str, str]:
    """A setting as a flag, and with the placeholder of its value."""
    shown = f"--{name.replace('_', '-')}"
    return shown, shown if hint is bool else f"{shown} {words_of(hint)}"


def positional_words(name: str, hint: Any, required: bool) -> tuple[str, str]:
    """A setting without a flag: the only word that it can be, or its name in capitals."""
    words = words_of(hint)
    upper = words if get_origin(hint) is Literal else name.upper()
    several = f"{upper} ..." if words.endswith("...") else upper
    return upper, several if required else f"[{several}]"


def written(value: Any) -> str:
    """A default as it is given on the command line."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def words_of(hint: Any) -> str:
    """The placeholder of a value; three dots where there may be several."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "|".join(map(str, inner))
    if origin in (Union, types.UnionType):
        return "|".join(words_of(part) for part in inner if part is not type(None))
    if origin is tuple:
        several = len(inner) == 2 and inner[1] is Ellipsis
        return f"{words_of(inner[0])} ..." if several else " ".join(map(words_of, inner))
    return WORDS.get(hint, "VALUE")


def lines(flag: Flag) -> list[str]:
    """A flag, and its meaning below it."""
    given = flag.given if len(flag.given) < width() - 2 else flag.given.replace("|", " | ")
    return [*wrapped(given, INDENT, "  "), *wrapped(flag.meaning, INDENT, INDENT)]


def fitted(text: str) -> str:
    """A text in lines of at most ``width``: paragraphs are filled, other long lines are broken.

    A line of a paragraph has no indent. A broken line of a command ends in what a shell joins by.
    """
    found: list[str] = []
    for prose, group in groupby(text.splitlines(), is_prose):
        if prose:
            found += wrapped(" ".join(group))
        else:
            found += [part for line in group for part in broken(line)]
    return "".join(f"{line}\n" for line in found)


def is_prose(line: str) -> bool:
    """Whether a line is part of a paragraph."""
    return bool(line) and not line.startswith((" ", "usage: "))


def broken(line: str) -> list[str]:
    """A line in parts of at most ``width``, of a command the later ones indented."""
    if len(line) <= width():
        return [line]
    indent = " " * (len(line) - len(line.lstrip()))
    further = "    " if line.lstrip().startswith(("usage: ", "ilu ")) else ""
    if name := re.match(r" +\S+ {2,}", line):  # a name and its meaning
        further = " " * (name.end() - len(indent))
    end = " \\" if line.startswith("  ilu ") else ""
    parts = textwrap.wrap(
        VALUE.sub("\\1\0", line.strip()).removesuffix("\\"), width() - len(end),
        initial_indent=indent, subsequent_indent=indent + further, break_on_hyphens=False,
    )  # fmt: skip
    parts = [part.replace("\0", " ") for part in parts]
    last = parts[-1] + (" \\" if line.endswith("\\") else "")
    return [*(f"{part}{end}" for part in parts[:-1]), last]
