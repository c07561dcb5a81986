"""Error messages in one line that says what to do."""

import difflib
import errno
from collections.abc import Collection

from torch import OutOfMemoryError

from ilu.system.secrets import without_secrets

REMEDIES = {
    errno.ENOSPC: ": free some space and add `resume`, or choose another `out`",
    errno.EACCES: ": choose another place, or change its permissions",
    errno.EROFS: ": choose another place",
}
NO_MEMORY = ("can't allocate memory", "Cannot allocate memory")
"""Messages of the CPU allocator, and of the system if a file cannot be mapped."""


def out_of_memory(error: Exception) -> bool:
    """Whether the error is a lack of memory on a device or on the CPU."""
    known = isinstance(error, OutOfMemoryError | MemoryError)
    return known or any(words in str(error) for words in NO_MEMORY)


def one_line(error: Exception) -> str:
    """The message without line breaks; system errors add their file and a remedy."""
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
    """The first line of an error of a library, or its type if the message is empty."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def unknown(what: str, name: str, known: Collection[str], every: str | None = None) -> ValueError:
    """The error for a name that is not in ``known``: a close match, and all known names."""
    parts = sorted(name.split("-"))  # those of a recipe may be in another order
    alike = [each for each in known if sorted(each.split("-")) == parts]
    near = alike or difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    there = every or ", ".join(known)
    return ValueError(f"unknown {what} {name!r}{hint} {what.capitalize()}s: {there}")


def reason(error: Exception) -> str:
    """Type and message of an error in one line without secrets, for a record."""
    return without_secrets(f"{type(error).__name__}: {one_line(error)}")
