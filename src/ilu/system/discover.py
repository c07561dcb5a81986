"""Discovery of methods, attacks and suites by walking their packages."""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any


def modules(package: ModuleType) -> Iterator[ModuleType]:
    """Import every module of ``package`` and of the packages inside it, in the order of names."""
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        yield importlib.import_module(info.name)


def discovered(package: ModuleType, table: str) -> dict[str, Any]:
    """Merge the mappings named ``table`` of all modules of ``package``."""
    merged: dict[str, Any] = {}
    for module in modules(package):
        entries: Mapping[str, Any] = vars(module).get(table, {})
        if twice := merged.keys() & entries.keys():
            raise ValueError(f"{module.__name__} defines {min(twice)!r}, like another file")
        merged.update(entries)
    return merged
