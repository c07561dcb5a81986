"""The header of a GGUF file: its settings and the list of its tensors, without any weight.

The ``gguf`` library takes seconds for a large vocabulary; this reader steps over the lists.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

MAGIC = b"GGUF"
VERSIONS = (2, 3)
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
           12: "d"}  # fmt: skip
"""Type of a value in the file -> its format for ``struct``."""
STRING, ARRAY = 8, 9
LONGEST = 1 << 30
"""Bytes of a string or entries of a list beyond which a length is damage."""


class Tensor(NamedTuple):
    """A tensor of the file; ``kind`` is the number of its quantisation."""

    name: str
    elements: int
    kind: int


class Header(NamedTuple):
    """Settings, lists left out, and tensors."""

    settings: Mapping[str, Any]
    tensors: tuple[Tensor, ...]


def read_header(path: Path) -> Header:
    """Read the header; ValueError if the file is no GGUF or ends within the header."""
    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            raise ValueError(f"{path} is not a GGUF file: it does not start with {MAGIC.decode()}")
        try:
            version = number(file, "I")
            if version not in VERSIONS:
                raise ValueError(f"{path} has version {version} of GGUF; versions 2 and 3 are read")
            tensors, settings = number(file, "Q"), number(file, "Q")
            found = dict(setting(file) for _ in range(settings))
            return Header(found, tuple(tensor(file) for _ in range(tensors)))
        except (struct.error, UnicodeDecodeError, KeyError, EOFError) as error:
            raise ValueError(f"{path} is damaged or incomplete: copy it again") from error


def setting(file: BinaryIO) -> tuple[str, Any]:
    """Name and value of a setting."""
    return string(file), value(file, number(file, "I"))


def tensor(file: BinaryIO) -> Tensor:
    """The entry of a tensor; where its data is in the file is skipped."""
    name = string(file)
    shape = [number(file, "Q") for _ in range(number(file, "I"))]
    kind, _ = number(file, "I"), number(file, "Q")
    return Tensor(name, prod(shape), kind)


def value(file: BinaryIO, kind: int) -> Any:
    """A value of this type; None for a list, which is skipped."""
    if kind == STRING:
        return string(file)
    if kind == ARRAY:
        return skip(file, number(file, "I"), length(file))
    return number(file, NUMBERS[kind])


def skip(file: BinaryIO, kind: int, count: int) -> None:
    """Step over a list."""
    if kind in NUMBERS:
        file.seek(count * struct.calcsize(f"<{NUMBERS[kind]}"), 1)
        return
    for _ in range(count):
        value(file, kind)


def string(file: BinaryIO) -> str:
    """A string after its length."""
    size = length(file)
    read = file.read(size)
    if len(read) < size:
        raise EOFError
    return read.decode()


def length(file: BinaryIO) -> int:
    """The length of a string or a list."""
    found = number(file, "Q")
    if found > LONGEST:
        raise EOFError
    return found


def number(file: BinaryIO, form: str) -> Any:
    """A little-endian number."""
    return struct.unpack(f"<{form}", file.read(struct.calcsize(f"<{form}")))[0]
