"""What went wrong, in one line that says what to do."""

import difflib
import errno
import sys
from collections.abc import Collection

from ilu.system.secrets import without_secrets

REMEDIES = {
    errno.ENOSPC: ": free some space and add `resume`, or choose another `out`",
    errno.EACCES: ": choose another place, or change its permissions",
    errno.EROFS: ": choose another place",
}
NO_MEMORY = ("can't allocate memory", "Cannot allocate memory")
"""What the processor's allocator says, and what the system says when a file is mapped."""


class Stopped(Exception):
    """Training was stopped by a signal; everything up to the last step is in the checkpoint."""


def out_of_memory(error: Exception) -> bool:
    """Whether a device, or the processor's allocator, had no more to give."""
    torch = sys.modules.get("torch")  # an error of torch means that it is imported already
    known = isinstance(error, MemoryError) or (torch and isinstance(error, torch.OutOfMemoryError))
    return bool(known) or any(words in str(error) for words in NO_MEMORY)


def one_line(error: Exception) -> str:
    """The message without line breaks; the system's own errors name their file and a way out."""
    if out_of_memory(error):
        return (
            "out of memory: lower `micro_batch`, `batch_size` or `truncate`, or add `recompute`; "
            "ilu plan RECIPE --model M --device-memory 24GiB says what fits"
        )
    if isinstance(error, OSError) and error.strerror:
        place = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{place}{REMEDIES.get(error.errno or 0, '')}"
    return " ".join(str(error).split())


def first_line(error: BaseException) -> str:
    """What an error of a library says first; its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def unknown(what: str, name: str, known: Collection[str], every: str | None = None) -> ValueError:
    """The error for a name that is none of those ``known``: what was perhaps meant, and all."""
    parts = sorted(name.split("-"))  # those of a recipe may stand in another order
    alike = [each for each in known if sorted(each.split("-")) == parts]
    near = alike or difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    there = every or ", ".join(known)
    return ValueError(f"unknown {what} {name!r}{hint} {what.capitalize()}s: {there}")


def reason(error: Exception) -> str:
    """The same with the kind of error before it, for a record; without secrets."""
    return without_secrets(f"{type(error).__name__}: {one_line(error)}")
