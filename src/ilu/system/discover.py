"""Discovery of methods, attacks and suites by walking their packages."""

import importlib
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

INIT = "__init__.py"


def files(folders: Iterable[str], prefix: str) -> Iterator[tuple[str, Path]]:
    """Dotted name and file of every module in ``folders`` and their packages, ordered by name.

    ``prefix`` is the name of the package with a dot. Only packages are imported.
    """
    for folder in folders:
        for name, file in listed(folder, os.stat(folder).st_mtime_ns):
            if file.name == INIT:
                inner = importlib.import_module(prefix + name)
                yield from files(inner.__path__, f"{prefix}{name}.")
            else:
                yield prefix + name, file


@cache
def listed(folder: str, changed: int) -> tuple[tuple[str, Path], ...]:
    """Name and file of each module of a folder; the file of a package is its ``__init__.py``.

    ``changed`` is the time of the folder's last change, so that new files are seen.
    """
    paths = [Path(folder, name) for name in sorted(os.listdir(folder)) if name != INIT]
    found = [(p.stem, p if p.suffix == ".py" else p / INIT) for p in paths]
    return tuple((name, file) for name, file in found if file.is_file())


def modules(package: ModuleType) -> Iterator[ModuleType]:
    """Import every module of ``package`` and of the packages inside it, in the order of names."""
    for name, _ in files(package.__path__, f"{package.__name__}."):
        yield importlib.import_module(name)


def discovered(package: ModuleType, table: str) -> dict[str, Any]:
    """Merge the mappings named ``table`` of all modules of ``package``."""
    merged: dict[str, Any] = {}
    for module in modules(package):
        entries: Mapping[str, Any] = vars(module).get(table, {})
        if twice := merged.keys() & entries.keys():
            raise ValueError(f"{module.__name__} defines {min(twice)!r}, like another file")
        merged.update(entries)
    return merged
