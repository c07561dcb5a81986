"""Settings as YAML: one ``key: value`` a line, the keys those of the flags."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ilu.cli.help import default_of


class Entry(NamedTuple):
    """A setting of a file: its key with underscores, its values as written, and its line.

    ``None`` as a value is null.
    """

    key: str
    values: tuple[str | bool | None, ...]
    line: int


def read_entries(path: Path) -> list[Entry]:
    """The settings of a YAML file. Values stay as they are written: 007 is not 7."""
    import yaml

    text = path.read_text(encoding="utf-8-sig")
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from None
    if not isinstance(root, yaml.MappingNode):
        raise ValueError(f"{path} has no settings: write one in each line, like steps: 100")
    found = [entry(key, value, path) for key, value in root.value]
    for i, one in enumerate(found):
        if one.key in [other.key for other in found[:i]]:
            raise ValueError(f"{path}, line {one.line}: {one.key!r} is given twice")
    return found


def entry(key: Any, value: Any, path: Path) -> Entry:
    """One setting from its two nodes."""
    import yaml

    nodes = value.value if isinstance(value, yaml.SequenceNode) else [value]
    line = key.start_mark.line + 1
    if not all(isinstance(node, yaml.ScalarNode) for node in (key, *nodes)):
        raise ValueError(f"{path}, line {line}: give a value or a list of values")
    return Entry(key.value.replace("-", "_"), tuple(map(scalar, nodes)), line)


def scalar(node: Any) -> str | bool | None:
    """A value as written, without quotes; true, false and null have their meaning."""
    words = {"true": True, "false": False, "null": None, "~": None, "": None}
    text = str(node.value)
    return text if node.style else words.get(text.lower(), text)


def as_yaml(
    kind: type,
    values: Any,
    head: Mapping[str, str],
    groups: Mapping[str, Sequence[str]] = {},
    omitted: Collection[str] = (),
) -> str:
    """The settings in ``values``, of the dataclass ``kind``, below those of ``head``.

    A setting without a value is left out if that is its default. ``groups``: see ``help_text``.
    """
    home = {name: title for title, names in groups.items() for name in names}
    parts: dict[str, list[str]] = {title: [] for title in groups}
    for group, name, value in chosen(kind, values, kind, ""):
        if name not in omitted:
            parts.setdefault(home.get(name, group), []).append(line(name, value))
    text = "".join(line(key, value) for key, value in head.items())
    for title, lines in parts.items():
        text += f"\n# {title}\n" if title and lines else ""
        text += "".join(lines)
    return text


def line(key: str, value: Any) -> str:
    """A setting as a line of YAML."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return f"{key}: " + text.removesuffix("...\n")


def chosen(
    kind: type, values: Any, defaults: Any, group: str
) -> Iterator[tuple[str, str, str | int | float | list[Any] | None]]:
    """Group, name and value of each setting; ``defaults``: see ``help.flags_of``."""
    for field in dataclasses.fields(kind):
        value, default = getattr(values, field.name), default_of(field, defaults)
        if dataclasses.is_dataclass(value):
            inner = type(value) if default is dataclasses.MISSING else default
            yield from chosen(type(value), value, inner, field.name.capitalize())
        elif value not in (None, (), "") or value != default:
            yield group, field.name, plain(value)


def plain(value: Any) -> Any:
    """A value in the types that YAML has."""
    if isinstance(value, tuple):
        return [plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value
