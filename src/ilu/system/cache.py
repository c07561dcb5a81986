"""The folder of what is computed once and used by later commands."""

import os
from functools import lru_cache
from pathlib import Path

from ilu.system.atomic import file_hash

CACHE = "ILU_CACHE"
"""Environment variable: the cache folder; without it, ``ilu`` in the user's cache folder."""


def cache_folder(kind: str) -> Path:
    """Folder of the cache for entries of one kind, such as ``models``; it may not exist yet."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ilu"
    return Path(os.environ.get(CACHE) or usual).resolve() / kind


def content_hash(file: Path) -> str:
    """SHA-256 of a file; a file with unchanged size and time is read once in a process."""
    stat = file.stat()
    return hash_of(file, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def hash_of(file: Path, size: int, changed: int) -> str:
    """SHA-256 of a file that had this size when it was changed last."""
    return file_hash(file)
