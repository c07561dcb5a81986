"""Atomic writes: files are written under a temporary name, then renamed."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError


@contextmanager
def new_file(path: Path) -> Generator[Path]:
    """Yield a temporary path to write to; without an error it is renamed to ``path``.

    The temporary name is fixed, so that a kill leaves at most one file. If two processes may write
    ``path``, take its lock first (``locks.alone``).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".partial")
    half.unlink(missing_ok=True)
    try:
        half.touch()
        mode = half.stat().st_mode
        with as_os_error():
            yield half
        let_read(half, mode)
        os.replace(half, path)
    except BaseException:
        half.unlink(missing_ok=True)
        raise


def inside(root: Path, name: str) -> Path:
    """The path ``name`` below ``root``; ValueError for a name that leads out of ``root``."""
    path = root / name
    if "\0" in name or not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{name!r} leads out of the folder {root}: choose another name")
    return path


def write_text(path: Path, text: str) -> None:
    """Write a file atomically, and its folder if needed."""
    with new_file(path) as half:
        half.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; ValueError for NaN and infinity, which are not JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_hash(value: Any) -> str:
    """SHA-256 of a value as JSON; values that JSON does not support are hashed as text."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def let_read(path: Path, mode: int) -> None:
    """Set the default mode of a file, since safetensors makes files readable only by the owner."""
    with suppress(PermissionError):
        path.chmod(mode)


@contextmanager
def as_os_error() -> Generator[None]:
    """Convert a failed write of the safetensors library into the underlying OSError."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


@contextmanager
def new_folder(path: Path) -> Generator[Path]:
    """Yield a temporary folder to fill; without an error it is renamed to ``path``."""
    half = path.with_name(path.name + ".partial")
    shutil.rmtree(half, ignore_errors=True)
    try:
        half.mkdir(parents=True)
        mode = half.stat().st_mode & 0o666
        with as_os_error():
            yield half
        for file in (p for p in half.rglob("*") if p.is_file() and not p.is_symlink()):
            let_read(file, mode)
        half.rename(path)
    except BaseException:
        shutil.rmtree(half, ignore_errors=True)
        raise
