"""The folder of what is computed once and used by later commands."""

import json
import os
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from ilu.system.atomic import file_hash, json_hash, write_json

CACHE = "ILU_CACHE"
"""Environment variable: the cache folder; without it, ``ilu`` in the user's cache folder."""
LARGE = 2**26
"""Files of at least so many bytes keep their hash between commands."""
SETTLED = 10**10
"""Nanoseconds: a file that changed later may change once more within a tick of the clock."""


def cache_folder(kind: str) -> Path:
    """Folder of the cache for entries of one kind, such as ``models``; it may not exist yet."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ilu"
    return Path(os.environ.get(CACHE) or usual).resolve() / kind


def content_hash(file: Path) -> str:
    """SHA-256 of a file; a file with unchanged size and times is read once in a process.

    A large one is read once by all commands, where the system keeps the time of its last change.
    """
    return hash_of(file.resolve(), *state_of(file))


@lru_cache(maxsize=256)
def hash_of(file: Path, *state: int) -> str:
    """SHA-256 of a file in this state."""
    if state[0] < LARGE or os.name != "posix":
        return file_hash(file)
    entry = cache_folder("hashes") / f"{json_hash(str(file))}.json"
    known = read_entry(entry)
    if known.get("state") == [*state] and "sha256" in known:
        return str(known["sha256"])
    made = file_hash(file)
    if state_of(file) == state and time.time_ns() - max(state[1:3]) > SETTLED:
        with suppress(OSError):  # a cache that cannot be written is no error
            write_json(entry, {"file": str(file), "state": state, "sha256": made})
    return made


def state_of(file: Path) -> tuple[int, ...]:
    """Size, times of the last change of content and of status, and place of a file.

    A program can set the first time back, but not the second.
    """
    stat = file.stat()
    return (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev)


def read_entry(entry: Path) -> dict[str, object]:
    """What is stored of a file; nothing if it cannot be read."""
    with suppress(OSError, ValueError):
        found = json.loads(entry.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}
