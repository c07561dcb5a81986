"""Error messages of one line that include a remedy."""

import difflib
import errno
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from traceback import walk_tb

from ilu.system.secrets import without_secrets

REMEDIES = {
    errno.ENOSPC: ": free some space and add `resume`, or choose another `out`",
    errno.EACCES: ": choose another place, or change its permissions",
    errno.EROFS: ": choose another place",
}
NO_MEMORY = ("can't allocate memory", "Cannot allocate memory")
"""Messages of the CPU allocator, and of the system if a file cannot be mapped."""


class TooLittleForgotten(Exception):
    """Unlearning finished, but forgot less than the user requires."""


class Stopped(Exception):
    """Training was stopped by a signal; everything up to the last step is in the checkpoint."""


def out_of_memory(error: Exception) -> bool:
    """Whether a device or the CPU allocator was out of memory."""
    torch = sys.modules.get("torch")  # an error of torch can only come after its import
    known = isinstance(error, MemoryError) or (torch and isinstance(error, torch.OutOfMemoryError))
    return bool(known) or any(words in str(error) for words in NO_MEMORY)


LIBRARIES = ("transformers", "tokenizers", "peft", "jinja2")
"""Packages whose errors are about a model, a tokenizer or a template, whatever their type."""


def of_library(error: Exception) -> bool:
    """Whether one of ``LIBRARIES`` raised an error, or called what raised it, such as torch."""
    files = [Path(frame.f_code.co_filename) for frame, _ in walk_tb(error.__traceback__)]
    torch = folder_of("torch")
    inner = next((f for f in reversed(files) if torch is None or torch not in f.parents), None)
    return inner is not None and any(folder_of(name) in inner.parents for name in LIBRARIES)


def folder_of(name: str) -> Path | None:
    """The folder of a package that was imported."""
    found = getattr(sys.modules.get(name), "__file__", None)
    return Path(found).parent if found else None


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
    """The first line of an error of a library, or its type if the message is empty.

    Names in backticks are settings of this package, so those of the library get other quotes.
    """
    lines = str(error).strip().splitlines()
    return lines[0].replace("`", "'") if lines else type(error).__name__


SUGGESTIONS = 3
"""Largest number of names that an error suggests."""


def unknown(what: str, name: str, known: Collection[str], every: str | None = None) -> ValueError:
    """The error for a name that is none of ``known``, with similar names or else with all.

    ``every`` is printed in place of all names where there are many.
    """
    near = similar(name, known)
    if near:
        return ValueError(f"unknown {what} {name!r}; did you mean {alternatives(near)}?")
    return ValueError(f"unknown {what} {name!r}. {what.capitalize()}s: {every or ', '.join(known)}")


def similar(name: str, known: Collection[str]) -> list[str]:
    """The names most similar to ``name``, if any is similar enough."""
    parts = sorted(name.split("-"))  # those of a recipe may be in another order
    if alike := [each for each in known if sorted(each.split("-")) == parts]:
        return alike[:SUGGESTIONS]
    near = difflib.get_close_matches(name, known, n=SUGGESTIONS)
    ratios = [difflib.SequenceMatcher(None, each, name).ratio() for each in near]
    return [each for each, ratio in zip(near, ratios, strict=True) if ratio > max(ratios) - 0.03]


def alternatives(names: Sequence[str]) -> str:
    """Quoted names with commas, and "or" before the last."""
    *first, last = map(repr, names)
    return f"{', '.join(first)} or {last}" if first else last


def reason(error: Exception) -> str:
    """Type and message of an error in one line without secrets, for a record."""
    return without_secrets(f"{type(error).__name__}: {one_line(error)}")
