"""The tables of a package, read from its source without importing it.

Importing a method imports torch, which takes seconds. Names and docstrings need neither.
"""

import ast
import importlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ilu.system.discover import files


class Declared(NamedTuple):
    """An entry of a table.

    ``settings`` are the arguments of its function or the fields of its class, ``doc`` the first
    paragraph of its docstring, ``keywords`` the keyword arguments that are strings. ``presets``:
    the entry has further defaults, such as the model of a published run.
    """

    name: str
    doc: str
    settings: tuple[str, ...]
    keywords: Mapping[str, str]
    presets: bool = False


def declared(package: str, table: str) -> Mapping[str, Declared]:
    """The entries of every mapping called ``table`` in the files of ``package``, by name.

    The mappings are literal: a name, and a call whose first argument is defined in the same file.
    """
    found: dict[str, Declared] = {}
    for _, file in files(importlib.import_module(package).__path__, f"{package}."):
        found.update((each.name, each) for each in entries(file, table, file.stat().st_mtime_ns))
    return found


@cache
def entries(file: Path, table: str, changed: int) -> Sequence[Declared]:
    """The entries of one file; ``changed`` is the time of its last change."""
    text = file.read_text(encoding="utf-8")
    if f"\n{table}" not in text:
        return ()
    body = ast.parse(text).body
    kinds = ast.FunctionDef, ast.ClassDef
    known = {node.name: node for node in body if isinstance(node, kinds)}
    mappings = [mapping for node in body if (mapping := mapping_of(node, table))]
    return tuple(
        entry(key, value, known)
        for mapping in mappings
        for key, value in zip(mapping.keys, mapping.values, strict=True)
    )


def mapping_of(node: ast.stmt, table: str) -> ast.Dict | None:
    """The mapping that a statement assigns to the name ``table``."""
    match node:
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=ast.Dict() as found)
            | ast.AnnAssign(target=ast.Name(id=name), value=ast.Dict() as found)
        ) if name == table:
            return found
        case _:
            return None


def entry(
    key: ast.expr | None, value: ast.expr, known: Mapping[str, ast.FunctionDef | ast.ClassDef]
) -> Declared:
    """One entry: ``"name": Kind(function or class, ...)``."""
    if not isinstance(key, ast.Constant) or not isinstance(value, ast.Call):
        raise ValueError(f"{ast.unparse(value)}: an entry of a table is a name and a call")
    first = value.args[0] if value.args else None
    thing = known.get(first.id) if isinstance(first, ast.Name) else None
    texts = {
        word.arg: str(word.value.value)
        for word in value.keywords
        if word.arg and isinstance(word.value, ast.Constant)
    }
    doc = (ast.get_docstring(thing) or "") if thing else ""
    presets = any(isinstance(each, ast.Dict) for each in value.args)
    return Declared(str(key.value), doc.split("\n\n")[0], settings(thing), texts, presets)


def settings(thing: ast.FunctionDef | ast.ClassDef | None) -> tuple[str, ...]:
    """The names of the arguments of a function, or of the fields of a class."""
    match thing:
        case ast.FunctionDef(args=found):
            return tuple(a.arg for a in (*found.posonlyargs, *found.args, *found.kwonlyargs))
        case ast.ClassDef(body=body):
            fields = [s.target for s in body if isinstance(s, ast.AnnAssign)]
            return tuple(target.id for target in fields if isinstance(target, ast.Name))
        case _:
            return ()
