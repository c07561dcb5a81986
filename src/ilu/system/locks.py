"""File locks: at most one process writes a path, and its lock ends with the process."""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


class Busy(Exception):
    """Another process is writing the path."""


@contextmanager
def alone(path: Path, *, wait: bool = False) -> Generator[None]:
    """Lock ``path`` for writing; if another process has the lock, ``wait`` or raise ``Busy``.

    The lock is ``flock`` on a hidden file next to ``path``. The system releases it when the process
    ends in any way, so a file that remains after a kill does not block.
    """
    lock = lock_of(path)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = acquire(lock, wait=wait)
    except OSError as error:  # the message names the user's path, not the lock's
        raise OSError(error.errno, error.strerror, str(path)) from error
    if file is None:
        raise Busy(
            f"{path} is being written by another process ({owner(lock)}): wait for it, or choose "
            "another `out`"
        )
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(file)


def lock_of(path: Path) -> Path:
    """The lock's file."""
    return path.with_name(f".{path.name}.lock")


def acquire(lock: Path, *, wait: bool) -> int | None:
    """The open and locked file, or None if another process has the lock."""
    while True:
        file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            another = written(file)
            os.close(file)
            if another:
                return None
            continue  # a shared lock of ``locked``, released at once
        if same_file(file, lock):
            os.truncate(file, 0)
            os.write(file, f"process {os.getpid()} on {os.uname().nodename}".encode())
            return file
        os.close(file)  # deleted by its last owner meanwhile: try again


def same_file(file: int, path: Path) -> bool:
    """Whether ``path`` is still the open file."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def owner(lock: Path) -> str:
    """The process that has the lock, as written in the file."""
    try:
        return lock.read_text(encoding="utf-8") or "unknown"
    except OSError:
        return "unknown"


def locked(path: Path) -> bool:
    """Whether a process is writing ``path``."""
    try:
        file = os.open(lock_of(path), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return written(file)
    finally:
        os.close(file)


def written(file: int) -> bool:
    """Whether another process has the lock; the test takes a shared lock, as other tests may."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
