"""Settings to JSON and back: dataclasses and functions of this package have a stable name.

The name does not include the module, so a record does not depend on where a class is defined.
``RENAMED``, ``REPLACED``, ``REMOVED``, ``ADDED``, ``FIELDS`` and ``VALUES`` translate older
records.
"""

import importlib
import json
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from inspect import isclass, isfunction
from pathlib import Path
from types import FunctionType
from typing import Any

import ilu

RENAMED: Mapping[str, str] = {
    "AtOnce": "WeightEdit",
    "alone": "answer_alone",
    "nothing": "nothing_derived",
    "whole": "whole_reply",
    "incomparable": "nothing_compared",
    "Shown": "FewShotChoice",
    "Taken": "SampledQuestions",
    "Left": "OtherQuestions",
    "Beside": "SecondModel",
}
"""Class or function of an older version -> its name today."""
REPLACED: Mapping[str, Any] = {"plain": {"type": "Plain"}}
"""Function of an older version -> the record of the class that replaces it."""
REMOVED: Mapping[str, Mapping[str, Any]] = {"Optim": {"fused_backward": False}}
"""Class -> fields that it no longer has, with the only value that can still be restored."""

ADDED: Mapping[str, Mapping[str, Any]] = {"Recipe": {"save_dtype": "float32"}}
"""Class -> fields that older records lack, where an older version did not do what is usual now."""

FIELDS: Mapping[str, Mapping[str, str]] = {
    "Optim": {"reach": "perturbed"},
    "LookAhead": {"ahead": "lookahead_step"},
    "Wordings": {"asked": "questions"},
    "FewShot": {"shown": "solved"},
    "HalfOfQuestions": {"whole": "questions"},
    "HalfOfExamples": {"whole": "source"},
}
"""Class, by its name today -> renamed fields: old name -> name today."""

VALUES: Mapping[str, Mapping[str, Mapping[Any, Any]]] = {"Facts": {"form": {"told": "sentence"}}}
"""Class -> field, both by their names today -> renamed values: old value -> value today."""


def describe(value: Any, path: str = "recipe") -> Any:
    """Turn settings into JSON; raises TypeError for a value that cannot be recorded."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        if {"type", "function"} & set(value):
            raise ValueError(f"{path} uses the name 'type' or 'function': choose another name")
        return {k: describe(v, f"{path}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [describe(v, f"{path}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, FunctionType) and value.__name__ != "<lambda>":
        return {"function": stable_name(value.__module__, value.__qualname__)}
    if is_dataclass(value) and not isinstance(value, type):
        kind = stable_name(type(value).__module__, type(value).__qualname__)
        inner = {f.name: getattr(value, f.name) for f in fields(value)}
        return {"type": kind, **{k: describe(v, f"{path}.{k}") for k, v in inner.items()}}
    raise TypeError(f"{path} is a {type(value).__name__}, which a run cannot record")


def restore(record: Any) -> Any:
    """Rebuild settings from a record of ``describe``; only names of this package are imported."""
    if isinstance(record, list):
        return tuple(restore(item) for item in record)
    if not isinstance(record, dict):
        return record
    if "function" in record:
        name = kind_of(record)
        return restore(REPLACED[name]) if name in REPLACED else defined(name, isfunction)
    inner = {k: restore(v) for k, v in updated(record).items() if k != "type"}
    return defined(kind_of(record), isclass)(**inner) if "type" in record else inner


def updated(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record of an older version with the fields of today."""
    if "type" not in record:
        return record
    kind = kind_of(record)
    kept = without_removed(kind, record)
    renamed = {FIELDS.get(kind, {}).get(k, k): v for k, v in kept.items()}
    complete = {**ADDED.get(kind, {}), **with_values(kind, renamed)}
    return {**complete, "data": with_roles(complete["data"])} if kind == "Recipe" else complete


def with_values(kind: str, record: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record with the values of today."""
    known = {k: VALUES[kind][k] for k in record if k in VALUES.get(kind, {})}
    return {k: known[k].get(v, v) if k in known else v for k, v in record.items()}


def with_roles(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The data of a recipe. In older records the name (forget, forget2) implied the role."""
    roles = {name: name.rstrip("0123456789") for name in data}
    known = {n: r for n, r in roles.items() if r in ("forget", "retain", "environment")}
    return {n: {"role": known[n], **feed} if n in known else feed for n, feed in data.items()}


def without_removed(kind: str, record: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record without the fields in ``REMOVED``; ValueError if one has another value."""
    gone = REMOVED.get(kind, {})
    for name in gone.keys() & record.keys():
        if record[name] != gone[name]:
            raise ValueError(
                f"the record has {name} = {record[name]!r}, which this version no longer has"
            )
    return {k: v for k, v in record.items() if k not in gone}


def kind_of(record: Mapping[str, Any]) -> str:
    """The stable name of a recorded dataclass or function, also in older records.

    Older versions wrote ``ilu.module:Name``. User-defined types keep their module.
    """
    name = str(record.get("type", record.get("function", "")))
    module, _, own = name.rpartition(":")
    short = own if module.startswith("ilu.") else name
    return RENAMED.get(short, short)


def with_stable_names(record: Any) -> Any:
    """A record in which all types have their names of today."""
    if isinstance(record, list):
        return [with_stable_names(item) for item in record]
    if not isinstance(record, dict):
        return record
    if isinstance(record.get("function"), str):
        name = kind_of(record)
        return REPLACED.get(name, {"function": name})
    inner = {k: with_stable_names(v) for k, v in record.items()}
    return {**inner, "type": kind_of(record)} if isinstance(record.get("type"), str) else inner


def stable_name(module: str, name: str) -> str:
    """The recorded name of a class or function, with its module if it is user-defined."""
    if not module.startswith("ilu."):
        return f"{module}:{name}"
    homes = modules_of(name)
    assert homes == [module], f"{module}:{name} needs a name of its own in the package: {homes}"
    return name


def modules_of(name: str) -> list[str]:
    """Modules that define a dataclass or function. Searches again for files that are new."""
    if name not in definitions():
        definitions.cache_clear()
    return definitions().get(name, [])


@cache
def definitions() -> Mapping[str, list[str]]:
    """Dataclass or function -> the modules of this package that define it at top level."""
    homes: dict[str, list[str]] = {}
    for info in pkgutil.walk_packages(ilu.__path__, "ilu."):
        finder: Any = info.module_finder
        file = Path(finder.path) / f"{info.name.rpartition('.')[2]}.py"
        text = "" if info.ispkg else file.read_text(encoding="utf-8")
        for name in re.findall(r"^(?:@dataclass.*\nclass|def) (\w+)", text, re.MULTILINE):
            homes.setdefault(name, []).append(info.name)
    return homes


def defined(name: str, kind: Callable[[Any], bool]) -> Any:
    """Import the dataclass or function of this package that is recorded as ``name``."""
    for module in modules_of(name):
        value = getattr(importlib.import_module(module), name)
        if kind(value) and (kind is isfunction or is_dataclass(value)):
            return value
    raise ValueError(
        f"recipe.json names {name!r}, which is not part of ilu: run it from Python, "
        "where the code that defines it is imported by you"
    )


def renewed(record: Any) -> Any:
    """An older record as it would be written today, including newer settings.

    A record with user-defined types cannot be restored and is returned unchanged.
    """
    try:
        return json.loads(json.dumps(describe(restore(record))))
    except (ValueError, TypeError):
        return record


def differences(old: Any, new: Any, path: str = "recipe") -> list[str]:
    """Differences between two recorded recipes, as ``path: old -> new``."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys([*old, *new])
        return [d for k in keys for d in differences(old.get(k), new.get(k), f"{path}.{k}")]
    # A setting that is missing in an older record may be empty in a newer one.
    same = old == new or (old is None and new in ({}, []))
    return [] if same else [f"{path}: {old} -> {new}"]
