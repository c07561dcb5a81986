"""The words of a command into the dataclass of its flags; a mistake is an error of one line."""

import dataclasses
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from ilu.cli.help import Flag, default_of, flags_of, hints_of
from ilu.system.errors import alternatives, similar

FLAG = re.compile(r"--?[A-Za-z][\w-]*(=.*)?", re.DOTALL)
EXPECTED: Mapping[Any, str] = {
    int: "a whole number", float: "a number", bool: "True or False", Path: "a path", str: "a text",
}  # fmt: skip
"""What a value of a type is called in an error."""
UNIONS = (Union, types.UnionType)


class Unread(Exception):
    """A word that is no value of a type."""


class Given(NamedTuple):
    """The words of one setting, in their order, and whether it was given as ``--no-``."""

    words: tuple[str, ...] = ()
    negated: bool = False


def read_words(kind: type, prog: str, words: Sequence[str]) -> Any:
    """An instance of the dataclass ``kind`` from the words behind the command ``prog``.

    Raises ValueError for an unknown flag, a wrong value, a flag that is given twice, a word too
    many, and what is required and missing.
    """
    known = {flag.name: flag for flag in flags_of(kind, kind, "")}
    given, loose = separated(known, prog, words)
    positional, left = placed([flag for flag in known.values() if flag.positional], loose)
    if left:
        raise too_many(known, prog, left[0], words)
    given |= positional
    values = {name: value_of(known[name], prog, each) for name, each in given.items()}
    check_complete([f for f in known.values() if f.required and f.name not in values], prog)
    return built(kind, kind, values)


def separated(
    known: Mapping[str, Flag], prog: str, words: Sequence[str]
) -> tuple[dict[str, Given], list[str]]:
    """The words of each flag, and those that belong to none."""
    found: dict[str, Given] = {}
    loose: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if not FLAG.fullmatch(word):
            loose.append(word)
            continue
        name, equals, first = word.partition("=")
        flag, negated = flag_called(known, prog, name)
        if flag.name in found and not repeated(flag.hint):
            raise ValueError(f"{flag.shown} is given twice: leave one out")
        earlier = found.get(flag.name, Given())
        taken = values_for(flag, [first] if equals else [], left)
        found[flag.name] = Given(earlier.words + taken, negated)
    return found, loose


def flag_called(known: Mapping[str, Flag], prog: str, name: str) -> tuple[Flag, bool]:
    """The flag of a word such as ``--micro-batch`` or ``--no-pack``, and whether it is negated."""
    key = name.removeprefix("--").replace("-", "_")
    for found, negated in ((key, False), (key.removeprefix("no_"), key.startswith("no_"))):
        flag = known.get(found)
        if flag and not flag.positional and (not negated or flag.hint is bool):
            return flag, negated
    raise no_flag(prog, name, [f.shown for f in known.values() if not f.positional])


def no_flag(prog: str, name: str, known: Sequence[str]) -> ValueError:
    """The error for a flag that is none of ``known``, with those that are similar."""
    near = similar(name.replace("_", "-"), known)
    hint = f"did you mean {alternatives(near)}?" if near else f"see {prog} --help"
    return ValueError(f"{prog} has no flag {name!r}; {hint}")


def values_for(flag: Flag, first: list[str], left: list[str]) -> tuple[str, ...]:
    """The words of a flag, taken from those that are ``left``; ``first`` came behind a ``=``."""
    if flag.hint is bool:
        if first:
            name = flag.shown.removeprefix("--")
            raise ValueError(f"--{name} has no value: give --{name} or --no-{name}")
        return ()
    count = 1 if [*first, *left[:1]] == ["None"] else number_of_words(flag.hint)
    while len(first) < count:
        if not left or left[0].startswith("--"):
            hint = f", as {flag.shown}=VALUE if it begins with --" if left else ""
            raise ValueError(f"{flag.shown} needs {expected(flag.hint)}{hint}")
        first.append(left.pop(0))
    return tuple(first)


def placed(positional: Sequence[Flag], loose: Sequence[str]) -> tuple[dict[str, Given], list[str]]:
    """The words without a flag, given to the positional settings in order, and those left over."""
    left = list(loose)
    found: dict[str, Given] = {}
    for flag in positional:
        count = len(left) if repeated(flag.hint) else min(1, len(left))
        if count or repeated(flag.hint):
            found[flag.name] = Given(tuple(left[:count]))
        left = left[count:]
    return found, left


def too_many(known: Mapping[str, Flag], prog: str, word: str, words: Sequence[str]) -> ValueError:
    """The error for a word that belongs to no setting, with a hint from the flag before it."""
    before = [w for w in list(words)[: list(words).index(word)] if w.startswith("--")]
    flag = flag_called(known, prog, before[-1].partition("=")[0])[0] if before else None
    hint = ""
    if flag and flag.hint is bool:
        hint = f": {before[-1]} has no value"
    elif flag and repeated(flag.hint):
        hint = f": for several values repeat {flag.shown}"
    return ValueError(f"{prog} does not take the word {word!r}{hint}; see {prog} --help")


def check_complete(missing: Sequence[Flag], prog: str) -> None:
    """Raise ValueError with the settings that are required and not given."""
    if not missing:
        return
    *first, last = [flag.given for flag in missing]
    names = f"{', '.join(first)} and {last}" if first else last
    about = f": {missing[0].about}" if not first and missing[0].about else ""
    raise ValueError(f"{prog} needs {names}{about.rstrip('.')}; see {prog} --help")


def value_of(flag: Flag, prog: str, given: Given) -> Any:
    """The value of a setting from its words."""
    if flag.hint is bool:
        return not given.negated
    if given.words == ("None",) and not (flag.optional or flag.positional):
        raise ValueError(
            f"{flag.shown} has no value (it is None, or blank in the file): give "
            f"{flag.given}, or leave it out"
        )
    try:
        return converted(flag.hint, given.words)
    except Unread:
        said, what = " ".join(given.words), expected(flag.hint)
        if flag.positional:
            raise ValueError(f"{prog} {said}: give {prog} {what}") from None
        raise ValueError(f"{flag.shown} {said}: give {what}") from None


def converted(hint: Any, words: Sequence[str]) -> Any:
    """Words as a value of the type ``hint``; Unread if they are none."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in UNIONS:
        return first_converted(inner, words)
    if origin in (tuple, list):
        every = inner[:1] * len(words) if repeated(hint) else inner
        if len(every) != len(words):
            raise Unread
        return origin(converted(part, [word]) for part, word in zip(every, words, strict=True))
    if len(words) != 1:
        raise Unread
    return single(hint, words[0])


def first_converted(kinds: Sequence[Any], words: Sequence[str]) -> Any:
    """The value by the first type that the words are one of; None comes first."""
    for kind in sorted(kinds, key=lambda kind: kind is not types.NoneType):
        with suppress(Unread):
            return converted(kind, words)
    raise Unread


def single(hint: Any, word: str) -> Any:
    """One word as a value."""
    if get_origin(hint) is Literal:
        choices = {str(choice): choice for choice in get_args(hint)}
    else:
        choices = {types.NoneType: {"None": None}, bool: {"True": True, "False": False}}.get(hint)
    if choices is not None:
        if word not in choices:
            raise Unread
        return choices[word]
    try:
        return hint(word)
    except (TypeError, ValueError):
        raise Unread from None


def repeated(hint: Any) -> bool:
    """Whether a flag is repeated for several values."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in UNIONS:
        return any(map(repeated, inner))
    return origin is list or (origin is tuple and inner[-1:] == (Ellipsis,))


def number_of_words(hint: Any) -> int:
    """The number of words behind a flag: more than one for a tuple of a fixed length."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in UNIONS:
        return max(map(number_of_words, inner))
    return len(inner) if origin is tuple and not repeated(hint) else 1


def expected(hint: Any) -> str:
    """What may be given, in words."""
    *first, last = list(dict.fromkeys(parts(hint)))
    return f"{', '.join(first)} or {last}" if first else last


def parts(hint: Any) -> Iterator[str]:
    """Every kind of value that a type accepts, None last."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        yield from map(str, inner)
    elif origin in UNIONS:
        for part in sorted(inner, key=lambda part: part is types.NoneType):
            yield from parts(part)
    elif origin is tuple and not repeated(hint):
        yield " and ".join(map(expected, inner))
    elif origin in (tuple, list):
        yield from parts(inner[0])
    else:
        yield "None" if hint is types.NoneType else EXPECTED.get(hint, "a value")


def built(kind: type, defaults: Any, values: Mapping[str, Any]) -> Any:
    """The dataclass ``kind`` with ``values``, and else ``defaults``: see ``flags_of``."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        default = default_of(field, defaults)
        inner = field_kind(kind, field.name)
        if inner is not None:
            found[field.name] = built(inner, inner if default is dataclasses.MISSING else default,
                                      values)  # fmt: skip
        elif field.name in values:
            found[field.name] = values[field.name]
        else:
            found[field.name] = default
    return kind(**found)


def field_kind(kind: type, name: str) -> type | None:
    """The dataclass that a field is, if it is one."""
    hint = hints_of(kind)[name]
    return hint if isinstance(hint, type) and dataclasses.is_dataclass(hint) else None
