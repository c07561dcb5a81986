"""Methods, attacks and suites are found by walking their package: no list names them."""

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
    """Merge the mapping that is called ``table`` in the modules of ``package`` that have one."""
    found: dict[str, Any] = {}
    for module in modules(package):
        own: Mapping[str, Any] = vars(module).get(table, {})
        if twice := found.keys() & own.keys():
            raise ValueError(f"{module.__name__} defines {min(twice)!r}, which another file has")
        found.update(own)
    return found
