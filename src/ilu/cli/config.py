"""``--config FILE``: the settings of a YAML file, as flags in front of those that are given."""

from collections.abc import Callable, Collection, Sequence
from itertools import takewhile
from pathlib import Path

from ilu.cli.flags import flags, key_of, without
from ilu.cli.names import Names
from ilu.cli.yaml_file import Entry, read_entries
from ilu.system.errors import alternatives, similar

FLAG = "--config"
TOGETHER = ("betas",)
"""Settings of several values that follow one flag; others repeat their flag."""


def with_config(
    names: Names,
    argv: Sequence[str],
    first: str,
    settings: Callable[[Sequence[str]], Collection[str]],
) -> list[str]:
    """The words of a command in which those of its file stand for ``--config FILE``.

    ``first`` is the key of what precedes the flags. ``settings``: from the words before the flags
    to the keys that a file may have. A flag overrides the file.
    """
    files = flags(argv, FLAG)
    if not files:
        return list(argv)
    if len(files) > 1:
        raise ValueError(f"{FLAG} is given twice: give one file")
    path, words = Path(files[0]), without(argv, [FLAG])
    entries = {entry.key: entry for entry in read_entries(path)}
    lead = list(takewhile(lambda word: not word.startswith("-"), words))
    rest = words[len(lead) :]
    named = next((entries.pop(key) for key in list(entries) if key in (first, f"{first}s")), None)
    if named and None in named.values:
        raise ValueError(f"{path}, line {named.line}: {first} has no value: write one")
    if not lead and named:
        lead = [str(value) for value in named.values]
    known = settings(lead)
    command = f"ilu {names.command}"
    what = " ".join([command, *lead[:1]]) if first == "recipe" else command
    overridden = set(map(key_of, rest))
    added: list[str] = []
    for entry in entries.values():
        key = key_of(names.today(f"--{entry.key}"))
        check_key(what, entry, key, path, known)
        added += [] if key in overridden else words_of(entry)
    return [*lead, *added, *rest]


def check_key(what: str, entry: Entry, key: str, path: Path, known: Collection[str]) -> None:
    """Raise ValueError for a ``key`` that is no setting; with ``known`` empty all are accepted."""
    if not known or key in known:
        return
    near = similar(entry.key, known)
    hint = f"; did you mean {alternatives(near)}?" if near else ""
    raise ValueError(f"{path}, line {entry.line}: {what} has no setting {entry.key!r}{hint}")


def words_of(entry: Entry) -> list[str]:
    """A setting as it is given on the command line."""
    flag = f"--{entry.key.replace('_', '-')}"
    if entry.key in TOGETHER:
        return [flag, *map(str, entry.values)]
    return [
        (flag if value else f"--no-{flag[2:]}") if isinstance(value, bool) else f"{flag}={value}"
        for value in entry.values
    ]
