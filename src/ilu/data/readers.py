"""Rows of a JSON-lines, CSV or Parquet file as dictionaries."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ilu.system.errors import first_line

Row = dict[str, Any]
LARGEST_ROW = 64 << 20
"""Largest number of characters of a row: enough for a very long book, but bounded in memory."""
LARGEST_FILE = 16 << 30
"""Largest size in bytes of a Parquet file after decompression, ..."""
LARGEST_RATIO = 64
"""... or this many times its size on disk, if that is more."""
ENDINGS = (".jsonl", ".json", ".csv", ".parquet")


def read_rows(path: Path) -> list[Row]:
    """All rows of a data file."""
    return list(iter_rows(path))


def iter_rows(path: Path) -> Iterator[Row]:
    """The rows of a data file, whose format is its ending, one by one.

    Errors name the file and, if possible, the line.
    """
    readers = {
        ".jsonl": iter_jsonl,
        ".json": iter_jsonl,
        ".csv": iter_csv,
        ".parquet": iter_parquet,
    }
    if path.suffix not in readers:
        raise ValueError(
            f"{path}: cannot read files ending in {path.suffix!r}; use one of {ENDINGS}"
        )
    if not path.is_file():
        raise ValueError(f"{path} does not exist or is not a file")
    empty = True
    try:
        for row in readers[path.suffix](path):
            empty = False
            yield row
    except csv.Error as error:
        raise ValueError(f"{path} is not a CSV file that can be read: {error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text (byte {error.start}): convert it first"
        ) from None
    if empty:
        raise ValueError(f"{path} is empty: it needs at least one row")


def iter_jsonl(path: Path) -> Iterator[Row]:
    """One JSON object per line; blank lines are skipped."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(iter(lambda: file.readline(LARGEST_ROW), ""), start=1):
            if len(line) >= LARGEST_ROW:
                raise ValueError(
                    f"{path}, line {number} is longer than {LARGEST_ROW} characters: write one "
                    "object per line, and cut long texts into several"
                )
            if line.strip():
                yield json_object(line, f"{path}, line {number}")


def json_object(line: str, where: str) -> Row:
    """Parse one JSON object; ValueError with its location otherwise."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not JSON ({error.msg}): write one object per line") from None
    except (RecursionError, ValueError) as error:  # nested a thousand deep; a number of many digits
        raise ValueError(f"{where} cannot be read: {error}") from None
    if not isinstance(row, dict):
        raise ValueError(f"{where} holds a {type(row).__name__}, not an object with columns")
    return row


def iter_csv(path: Path) -> Iterator[Row]:
    """Rows of a CSV file; every value stays text, so that 007 is not 7."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
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
    limit = max(LARGEST_FILE, LARGEST_RATIO * path.stat().st_size)
    try:
        with pyarrow.parquet.ParquetFile(path, buffer_size=1 << 20) as file:
            for batch in file.iter_batches(batch_size=256):
                part = batch.to_pylist()
                # A text that is stored once and referenced repeatedly counts every time.
                texts = [v for row in part for v in row.values() if isinstance(v, str | bytes)]
                size += max(batch.nbytes, sum(map(len, texts)))
                if size > limit:
                    raise ValueError(f"{path} unpacks to more than {limit} bytes: take fewer rows")
                if max(map(len, texts), default=0) > LARGEST_ROW:
                    raise ValueError(
                        f"{path} has a row longer than {LARGEST_ROW} characters: cut long texts "
                        "into several"
                    )
                yield from part
    except MemoryError:  # one of Arrow's errors is a MemoryError
        raise
    except (pyarrow.ArrowException, OSError) as error:
        why = first_line(error)
        raise ValueError(f"{path} is not a Parquet file that can be read: {why}") from None
