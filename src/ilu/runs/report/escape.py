"""Escape untrusted text for each format: text of models and files must not become markup."""

import json
import re
from collections.abc import Mapping
from typing import Any

BROKEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
"""Control characters, changes of writing direction, halves of surrogate pairs."""
LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", **{c: f"\\{c}" for c in "&%$#_"},
}  # fmt: skip


def printable(text: str) -> str:
    """The text with U+FFFD for every character that cannot be displayed or encoded."""
    return BROKEN.sub("\ufffd", text)


def clean(value: Any) -> Any:
    """A JSON value with printable strings only."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable(str(k)): clean(v) for k, v in value.items()}
    return [clean(v) for v in value] if isinstance(value, list | tuple) else value


def script_json(value: Any) -> str:
    """JSON for a script element; no character in it can end the element."""
    text = json.dumps(clean(value), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def markdown(text: str) -> str:
    """A cell of a Markdown table."""
    flat = " ".join(printable(text).split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", flat)


def latex(text: str) -> str:
    """A cell of a LaTeX table."""
    flat = " ".join(printable(text).split())
    return "".join(LATEX.get(c, c) for c in flat)


def spreadsheet(text: str) -> str:
    """A cell of a CSV file; formulas are quoted so that a spreadsheet shows them as text."""
    flat = printable(text)
    return f"'{flat}" if flat[:1] in ("=", "+", "-", "@", "\t") else flat
