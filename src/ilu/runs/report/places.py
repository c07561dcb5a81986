"""Paths on the page: relative to the page's folder or names only, since folders may be private."""

import os
import re
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

ABSOLUTE = re.compile(
    r"(?<![\w.:/~\\<-])(?:/(?:[\w.+@=%~-]+/)*[A-Za-z_.][\w.+@=%~-]*/?|[A-Za-z]:\\[\w.\\ -]+)"
)
"""An absolute path within a text."""


def local(text: str, home: Path) -> str:
    """A text whose absolute paths are relative to ``home``, or names where they are far from it."""
    if Path(text).is_absolute() and "\n" not in text:
        return shortened(text, home)
    return ABSOLUTE.sub(lambda found: shortened(found[0], home), text)


def shortened(path: str, home: Path) -> str:
    """A path relative to ``home`` if it leads up by one folder at most; otherwise its name."""
    if "\\" in path:
        return PureWindowsPath(path).name
    relative = Path(os.path.relpath(path, home))
    return str(relative) if relative.parts.count("..") < 2 else Path(path).name or path


def local_record(value: Any, home: Path) -> Any:
    """A JSON value without absolute paths."""
    if isinstance(value, str):
        return local(value, home)
    if isinstance(value, Mapping):
        return {local(str(k), home): local_record(v, home) for k, v in value.items()}
    return [local_record(v, home) for v in value] if isinstance(value, list | tuple) else value
