"""One process at a time: the right to write a path, which ends with the process that has it."""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


class Busy(Exception):
    """Another process is writing there."""


@contextmanager
def alone(path: Path, *, wait: bool = False) -> Generator[None]:
    """Be the only process that writes ``path``; raise ``Busy``, or ``wait``, if another does.

    The lock is ``flock`` on a hidden file beside it. The system lets go of it when the process
    ends, however that happens, so that a file left behind by a kill is no obstacle.
    """
    lock = lock_of(path)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = acquire(lock, wait=wait)
    except OSError as error:  # told of the user's path and not of ours
        raise OSError(error.errno, error.strerror, str(path)) from error
    if held is None:
        raise Busy(
            f"{path} is being written by another process ({owner(lock)}): wait for it, or choose "
            "another `out`"
        )
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(held)


def lock_of(path: Path) -> Path:
    """The lock's file."""
    return path.with_name(f".{path.name}.lock")


def acquire(lock: Path, *, wait: bool) -> int | None:
    """An open file that is ours, or nothing if it is another's."""
    while True:
        file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            another = written(file)
            os.close(file)
            if another:
                return None
            continue  # someone only looked
        if same_file(file, lock):
            os.truncate(file, 0)
            os.write(file, f"process {os.getpid()} on {os.uname().nodename}".encode())
            return file
        os.close(file)  # the one before us removed it while we waited: what we have is no lock


def same_file(file: int, path: Path) -> bool:
    """Whether the open file is still what lies at ``path``."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def owner(lock: Path) -> str:
    """Who says to have the lock."""
    try:
        return lock.read_text(encoding="utf-8") or "unknown"
    except OSError:
        return "unknown"


def held(path: Path) -> bool:
    """Whether some process is writing ``path`` now."""
    try:
        file = os.open(lock_of(path), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return written(file)
    finally:
        os.close(file)


def written(file: int) -> bool:
    """Whether another process has the lock to write; looking shares it with all who look."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
