"""The user's files behind a value, checked before a model is loaded."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from ilu.data.multiple_choice import ChoiceRows
from ilu.data.text import Dataset, Passages

Input = Dataset | Passages | ChoiceRows


def check_files(value: Any) -> None:
    """ValueError for a file in ``value`` that is missing, or whose columns cannot be used."""
    checked: list[Input] = []
    for each in inputs_in(value):
        if each not in checked:
            each.check()
            checked.append(each)


def inputs_in(value: Any) -> Iterator[Input]:
    """Every source of data in a dataclass, a mapping or a tuple, at any depth."""
    if isinstance(value, Input):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from inputs_in(each)
    elif isinstance(value, tuple):
        for each in value:
            yield from inputs_in(each)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from inputs_in(getattr(value, field.name))
