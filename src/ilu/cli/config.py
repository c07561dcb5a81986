"""``--config FILE``: the settings of a YAML file, as flags in front of those that are given."""

from collections.abc import Callable, Collection, Sequence
from itertools import takewhile
from pathlib import Path

from ilu.cli.flags import flags, key_of, without
from ilu.cli.yaml_file import Entry, read_entries
from ilu.system.errors import alternatives, similar

FLAG = "--config"
TOGETHER = ("betas",)
"""Settings of several values that follow one flag; others repeat their flag."""


def with_config(
    command: str,
    argv: Sequence[str],
    first: str,
    settings: Callable[[Sequence[str]], Collection[str]],
) -> list[str]:
    """The words of ``command`` in which those of its file stand for ``--config FILE``.

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
    named = entries.pop(first, None)
    if named and None in named.values:
        raise ValueError(f"{path}, line {named.line}: {first} has no value: write one")
    if not lead and named:
        lead = [str(value) for value in named.values]
    known = settings(lead)
    what = " ".join([command, *lead[:1]]) if first == "recipe" else command
    for entry in entries.values():
        check_key(what, entry, path, known)
    overridden = set(map(key_of, rest))
    added = [
        w for e in entries.values() if key_of(f"--{e.key}") not in overridden for w in words_of(e)
    ]
    return [*lead, *added, *rest]


def check_key(what: str, entry: Entry, path: Path, known: Collection[str]) -> None:
    """Raise ValueError for a key that is no setting; with ``known`` empty all are accepted."""
    if not known or key_of(f"--{entry.key}") in known:
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
