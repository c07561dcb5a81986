"""Rows of a JSON, JSON-lines, CSV or Parquet file as dictionaries."""

import csv
import io
import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ilu.system.errors import first_line

Row = dict[str, Any]
LARGEST_ROW = 64 << 20
"""Largest number of characters of a row: enough for a very long book, but bounded in memory."""
LARGEST_FILE = 16 << 30
"""Largest size in bytes of a file after decompression, ..."""
LARGEST_RATIO = 64
"""... or this many times its size on disk, if that is more."""
LARGEST_ARRAY = 1 << 30
"""Largest number of characters of a JSON file that is one array, which is read at once."""
FORMATS = (".jsonl", ".json", ".csv", ".parquet")
COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
"""Endings after those of text formats, and the names that Arrow has for them."""
ENDINGS = (*FORMATS, *(f"{text}{end}" for text in FORMATS[:3] for end in COMPRESSED))


def read_rows(path: Path) -> list[Row]:
    """All rows of a data file."""
    return list(iter_rows(path))


def is_data_file(name: str | Path) -> bool:
    """Whether a name has the ending of a data file."""
    return str(name).endswith(ENDINGS)


def ending(path: Path) -> str:
    """The format of a data file, and its compression; else the last ending."""
    return next((e for e in reversed(ENDINGS) if path.name.endswith(e)), path.suffix)


def iter_rows(path: Path) -> Iterator[Row]:
    """The rows of a data file, whose format is its ending, one by one.

    Errors name the file and, if possible, the line.
    """
    readers = {
        ".jsonl": iter_jsonl,
        ".json": iter_json,
        ".csv": iter_csv,
        ".parquet": iter_parquet,
    }
    if not is_data_file(path):
        known = f"{', '.join(FORMATS)}; the first three may be compressed as .gz or .zst"
        raise ValueError(f"{path}: cannot read files ending in {path.suffix!r}; use one of {known}")
    if not path.is_file():
        raise ValueError(f"{path} does not exist or is not a file")
    empty = True
    try:
        for row in readers["." + ending(path).split(".")[1]](path):
            empty = False
            yield checked_length(row, path)
    except csv.Error as error:
        if "field limit" in str(error):
            raise ValueError(too_long(path)) from None
        raise ValueError(f"{path} is not a CSV file that can be read: {error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text (byte {error.start}): convert it first"
        ) from None
    if empty:
        raise ValueError(f"{path} is empty: it needs at least one row")


def characters(value: Any) -> int:
    """The number of characters of text in a value, and of bytes of binary data."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(map(characters, value.values()))
    return sum(map(characters, value)) if isinstance(value, list) else 0


def checked_length(row: Row, path: Path) -> Row:
    """The row; ValueError if it is longer than the limit, in whatever columns."""
    if characters(row) > LARGEST_ROW:
        raise ValueError(too_long(path))
    return row


def too_long(path: Path) -> str:
    """The error for a row beyond the limit, which is the same for every format."""
    return f"{path} has a row longer than {LARGEST_ROW} characters: cut long texts into several"


@contextmanager
def text_of(path: Path, newline: str | None = None) -> Generator[io.TextIOWrapper]:
    """A text file, decompressed by its ending; ValueError for one that is damaged."""
    kind = COMPRESSED.get(path.suffix)
    if kind is None:
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            yield file
        return
    import pyarrow

    try:
        with pyarrow.input_stream(str(path), compression=kind) as stream:
            raw: Any = stream  # it has the methods of a raw file
            yield io.TextIOWrapper(io.BufferedReader(raw), encoding="utf-8-sig", newline=newline)
    except (pyarrow.ArrowException, OSError) as error:
        why = first_line(error)
        raise ValueError(f"{path} is not a {kind} file that can be read: {why}") from None


def lines_of(file: io.TextIOWrapper, path: Path) -> Iterator[str]:
    """The lines of a file, a long one in pieces; ValueError if it unpacks to more than a limit."""
    left = largest(path)
    while line := file.readline(LARGEST_ROW):
        left -= len(line)
        if left < 0:
            raise ValueError(unpacks_to_more(path))
        yield line


def largest(path: Path) -> int:
    """The most bytes that a file may unpack to."""
    return max(LARGEST_FILE, LARGEST_RATIO * path.stat().st_size)


def unpacks_to_more(path: Path) -> str:
    """The error for a file that unpacks to more."""
    return f"{path} unpacks to more than {largest(path)} bytes: take fewer rows"


def iter_jsonl(path: Path) -> Iterator[Row]:
    """One JSON object per line; blank lines are skipped."""
    with text_of(path) as file:
        for number, line in enumerate(lines_of(file, path), start=1):
            if len(line) >= LARGEST_ROW:
                raise ValueError(
                    f"{path}, line {number} is longer than {LARGEST_ROW} characters: write one "
                    "object per line, and cut long texts into several"
                )
            if line.strip():
                yield json_object(line, f"{path}, line {number}")


def iter_json(path: Path) -> Iterator[Row]:
    """One array of objects, one object over several lines, or one object per line."""
    with text_of(path) as file:
        lines = lines_of(file, path)
        first = next((line.strip() for line in lines if line.strip()), "")
    if not (first.startswith("[") or opens_an_object(first)):
        yield from iter_jsonl(path)
        return
    with text_of(path) as file:
        content = file.read(LARGEST_ARRAY)
    if len(content) >= LARGEST_ARRAY:
        raise ValueError(
            f"{path} is longer than {LARGEST_ARRAY} characters: write one object per line"
        )
    items = array_of(content, str(path))
    for number, item in enumerate(items, start=1):
        yield checked_object(item, f"{path}, item {number}")


def opens_an_object(line: str) -> bool:
    """Whether a line is the beginning of a JSON object that later lines end."""
    try:
        json.loads(line)
    except json.JSONDecodeError as error:
        return line.startswith("{") and error.pos >= len(line.rstrip())
    except (RecursionError, ValueError):
        return False
    return False


def array_of(content: str, where: str) -> list[Any]:
    """The items of a JSON array, or one object as the only item."""
    found = json_value(content, where, "write one array of objects, or one object per line")
    return found if isinstance(found, list) else [found]


def json_object(line: str, where: str) -> Row:
    """Parse one JSON object; ValueError with its location otherwise."""
    return checked_object(json_value(line, where, "write one object per line"), where)


def json_value(text: str, where: str, advice: str) -> Any:
    """Parse JSON; ValueError with its location and advice otherwise."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not JSON ({error.msg}): {advice}") from None
    except (RecursionError, ValueError) as error:  # nested a thousand deep; a number of many digits
        raise ValueError(f"{where} cannot be read: {error}") from None


def checked_object(value: Any, where: str) -> Row:
    """The value, if it is an object."""
    if not isinstance(value, dict):
        raise ValueError(f"{where} is a {type(value).__name__}, not an object with columns")
    return value


def iter_csv(path: Path) -> Iterator[Row]:
    """Rows of a CSV file; every value stays text, so that 007 is not 7."""
    csv.field_size_limit(LARGEST_ROW)
    with text_of(path, newline="") as file:
        for number, row in enumerate(csv.DictReader(lines_of(file, path)), start=2):
            if None in row or None in row.values():
                raise ValueError(
                    f"{path}, row {number} has another number of fields than the header"
                )
            yield row


def iter_parquet(path: Path) -> Iterator[Row]:
    """The rows of a Parquet file, read in small batches."""
    import pyarrow
    import pyarrow.parquet

    size = 0
    limit = largest(path)
    try:
        with pyarrow.parquet.ParquetFile(path, buffer_size=1 << 20) as file:
            for batch in file.iter_batches(batch_size=256):
                part = batch.to_pylist()
                # A text that is stored once and referenced repeatedly counts every time.
                size += max(batch.nbytes, sum(map(characters, part)))
                if size > limit:
                    raise ValueError(unpacks_to_more(path))
                yield from part
    except MemoryError:  # one of Arrow's errors is a MemoryError
        raise
    except (pyarrow.ArrowException, OSError) as error:
        why = first_line(error)
        raise ValueError(f"{path} is not a Parquet file that can be read: {why}") from None
