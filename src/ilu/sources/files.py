"""Rows of a JSON-lines, CSV or Parquet file as dictionaries."""

import csv
import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]
LARGEST_ROW = 64 << 20
"""Characters of one row: enough for a library's longest book, too few for a memory to fill."""
LARGEST_FILE = 16 << 30
"""Bytes of a Parquet file's columns when they are unpacked, whatever its size on the disk."""
ENDINGS = (".jsonl", ".json", ".csv", ".parquet")


def read_rows(path: Path) -> list[Row]:
    """Read a data file by its ending; errors name the file and, where there is one, the line."""
    readers = {
        ".jsonl": read_jsonl,
        ".json": read_jsonl,
        ".csv": read_csv,
        ".parquet": read_parquet,
    }
    if path.suffix not in readers:
        raise ValueError(
            f"{path}: cannot read files ending in {path.suffix!r}; use one of {ENDINGS}"
        )
    if not path.is_file():
        raise ValueError(f"{path} does not exist or is not a file")
    try:
        rows = readers[path.suffix](path)
    except csv.Error as error:
        raise ValueError(f"{path} is not a CSV file that can be read: {error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text (byte {error.start}): convert it first"
        ) from None
    if not rows:
        raise ValueError(f"{path} is empty: it needs at least one row")
    return rows


def read_jsonl(path: Path) -> list[Row]:
    """One JSON object per line; blank lines are skipped."""
    rows: list[Row] = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(iter(lambda: file.readline(LARGEST_ROW), ""), start=1):
            if len(line) >= LARGEST_ROW:
                raise ValueError(
                    f"{path}, line {number} is longer than {LARGEST_ROW} characters: write one "
                    "object per line, and cut long texts into several"
                )
            if line.strip():
                rows.append(json_object(line, f"{path}, line {number}"))
    return rows


def json_object(line: str, where: str) -> Row:
    """Parse one object or say where the text is not one."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not JSON ({error.msg}): write one object per line") from None
    except (RecursionError, ValueError) as error:  # nested a thousand deep; a number of many digits
        raise ValueError(f"{where} cannot be read: {error}") from None
    if not isinstance(row, dict):
        raise ValueError(f"{where} holds a {type(row).__name__}, not an object with columns")
    return row


def read_csv(path: Path) -> list[Row]:
    """Every value stays text, so that 007 is not 7."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise ValueError(f"{path}, row {number} has another number of fields than the header")
    return rows


def read_parquet(path: Path) -> list[Row]:
    """All rows of a Parquet file."""
    import pyarrow
    import pyarrow.parquet

    rows: list[Row] = []
    size = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                part = batch.to_pylist()
                # What is stored once and repeated counts as often as it is there.
                texts = (v for row in part for v in row.values() if isinstance(v, str | bytes))
                size += max(batch.nbytes, sum(map(len, texts)))
                if size > LARGEST_FILE:
                    raise ValueError(
                        f"{path} unpacks to more than {LARGEST_FILE} bytes: take fewer rows"
                    )
                rows += part
    except MemoryError:  # one of Arrow's own errors is
        raise
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} is not a Parquet file that can be read: {reason}") from None
    return rows
